"""Files of text formats as rows, with nothing guessed: text stays text, and what is wrong is said with its line.

The readers of `datasets` turn "2020-01-01" into a date, "007" and "NA" in a csv into a number and nothing, and a csv's
surplus field into another column. These do not.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.errors import UserError, refuse

if TYPE_CHECKING:
    import datasets

BYTE_ORDER_MARK = "\ufeff"
LONGEST_FIELD = 2**31 - 1
ROWS_IN_BATCH = 256
EXACT_DIGITS = 18
"""Longer integers are kept as floats; the reader of `datasets` takes 64 bits."""

Row = dict[str, Any]


def write_arrow(
    read: Callable[[Path], Iterator[Row]], splits: Mapping[str, Sequence[Path]], target: Path
) -> list[Path]:
    """Writes files as Arrow, each split as one.

    A column whose every value is text is text; another holds any JSON, a value as it is written in the file. A row that
    lacks a column which others have holds None there.

    Args:
        read: One of `READERS`.
        splits: The files of each split.
        target: Directory to write SPLIT.arrow to.

    Returns:
        The written files, in the order of the splits.

    Raises:
        UserError: If a file cannot be read, with the line, or there is no row in any.
    """
    import pyarrow as pa

    columns = _columns(row for paths in splits.values() for path in paths for row in read(path))
    if not columns:
        raise refuse(
            "split", f"{', '.join(splits)!r}, whose files have no row", "a split that has rows", "Fill the files."
        )
    schema = columns.arrow_schema
    written = []
    for split, paths in splits.items():
        written.append(target / f"{split}.arrow")
        rows = (row for path in paths for row in read(path))
        with pa.ipc.new_stream(written[-1], schema) as stream:
            while batch := list(islice(rows, ROWS_IN_BATCH)):
                arrays = [_array([row.get(field.name) for row in batch], field.type) for field in schema]
                stream.write_batch(pa.record_batch(arrays, schema=schema))
    return written


def _columns(rows: Iterator[Row]) -> "datasets.Features":
    import datasets

    is_text: dict[str, bool] = {}
    for row in rows:
        for name, value in row.items():
            is_text[name] = is_text.get(name, True) and (value is None or isinstance(value, str))
    return datasets.Features(
        {name: datasets.Value("string") if text else datasets.Json() for name, text in is_text.items()}
    )


def _array(values: list[Any], kind: Any) -> Any:
    import pyarrow as pa

    if kind == pa.string():
        return pa.array(values, kind)
    return pa.array([None if value is None else json.dumps(value) for value in values], pa.string()).cast(kind)


def read_json(path: Path) -> Iterator[Row]:
    """Rows of a file with one object a line, or with one array of objects, or with one object.

    Args:
        path: The file.

    Yields:
        The objects.

    Raises:
        UserError: If a line is not JSON, or not an object.
    """
    first = next((line for line in _lines(path) if line.strip()), "")
    if first.lstrip().startswith("[") or (path.suffix == ".json" and not _is_json(first)):
        yield from _read_document(path)
        return
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            yield _object(path, f"line {number}", _parse(path, line.rstrip(), number))


def _read_document(path: Path) -> Iterator[Row]:
    document = _parse(path, "".join(_lines(path)), 1)
    if not isinstance(document, list):
        document = [document]
    for number, value in enumerate(document):
        yield _object(path, f"element {number} (from 0)", value)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(path: Path, text: str, line: int) -> Any:
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite, parse_constant=lambda _: None
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        raise _unreadable(path, f"line {line + error.lineno - 1}", f"{error.msg} at column {error.colno}") from error
    except UnicodeEncodeError as error:
        raise _unreadable(path, f"line {line}", "half of a surrogate pair, which is no character") from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"line {line}", str(error)) from error


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} twice in an object")
    return row


def _integer(digits: str) -> int | float | None:
    return int(digits) if len(digits) <= EXACT_DIGITS else _finite(digits)


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _object(path: Path, place: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise _unreadable(path, place, f"{str(value)[:40]!r} where an object with columns is expected")
    return value


def read_csv(path: Path) -> Iterator[Row]:
    """Rows of a file with comma-separated values below a header; every value is text.

    Args:
        path: The file; lines end with LF or CRLF, quotes are doubled within quotes.

    Yields:
        The records by column.

    Raises:
        UserError: If the header is absent or names a column twice, or a record has another number of fields.
    """
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(_lines(path), strict=True)
    header: list[str] = []
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise _unreadable(path, place, str(error)) from error
        if record is None:
            break
        if not header:
            header = _header(path, place, record)
        elif record and len(record) != len(header):
            raise _unreadable(path, place, f"{len(record)} fields where the header has {len(header)}")
        elif record:
            yield dict(zip(header, record, strict=True))
    if not header:
        raise _unreadable(path, "line 1", "no header")


def _header(path: Path, place: str, record: list[str]) -> list[str]:
    twice = sorted({name for name in record if record.count(name) > 1})
    if twice:
        raise _unreadable(path, place, f"the column {', '.join(map(repr, twice))} twice in the header")
    return record


def read_text(path: Path) -> Iterator[Row]:
    """Lines of a file that are not blank, each a row with the column "text"."""
    for line in _lines(path):
        if line.strip():
            yield {"text": line.removesuffix("\n").removesuffix("\r")}


def read_xml(path: Path) -> Iterator[Row]:
    """A whole file as one row with the column "xml"."""
    yield {"xml": "".join(_lines(path)).replace("\r\n", "\n")}


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "json": read_json,
    "csv": read_csv,
    "text": read_text,
    "xml": read_xml,
}
"""The reader of each text format."""


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise _unreadable(path, f"line {number}", f"text that is not UTF-8: {error}") from error
            yield text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text


def _unreadable(path: Path, place: str, why: str) -> UserError:
    return refuse(
        "dataset",
        f"{path.name}, {place}, which cannot be read: {why}",
        "files in UTF-8 whose every row is whole",
        "Mend the file.",
    )
