"""Files of text formats as rows, with nothing guessed: text stays text, and what is wrong is said with its line.

The readers of `datasets` turn "2020-01-01" into a date, "007" and "NA" in a csv into a number and nothing, and a csv's
surplus field into another column. These do not.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.errors import refuse
from kfp_finetune.json_rows import Row, read_json
from kfp_finetune.lines import LARGEST_ROW_BYTES, MOST_COLUMNS, lines, too_large, too_many_columns, twice, unreadable

if TYPE_CHECKING:
    import datasets

LONGEST_FIELD = 2**31 - 1
ROWS_IN_BATCH = 256


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

    columns = _columns((path.name, row) for paths in splits.values() for path in paths for row in read(path))
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
            for batch in _batches(rows, schema):
                arrays = [
                    pa.array(cells, pa.string()).cast(field.type) for cells, field in zip(batch, schema, strict=True)
                ]
                stream.write_batch(pa.record_batch(arrays, schema=schema))
    return written


def _batches(rows: Iterator[Row], schema: Any) -> Iterator[list[tuple[str | None, ...]]]:
    """The columns of some rows at a time: of fewer where they are large."""
    import pyarrow as pa

    is_text = {field.name: field.type == pa.string() for field in schema}
    batch: list[list[str | None]] = []
    size = 0
    for row in rows:
        cells = [_cell(row.get(name), text) for name, text in is_text.items()]
        batch.append(cells)
        size += sum(len(cell) for cell in cells if cell)
        if len(batch) == ROWS_IN_BATCH or size > LARGEST_ROW_BYTES:
            yield list(zip(*batch, strict=True))
            batch, size = [], 0
    if batch:
        yield list(zip(*batch, strict=True))


def _cell(value: Any, is_text: bool) -> str | None:
    return value if is_text or value is None else json.dumps(value)


def _columns(rows: Iterator[tuple[str, Row]]) -> "datasets.Features":
    """The columns of all rows, each given with its file's name."""
    import datasets

    is_text: dict[str, bool] = {}
    for file_name, row in rows:
        for name, value in row.items():
            is_text[name] = is_text.get(name, True) and (value is None or isinstance(value, str))
        if len(is_text) > MOST_COLUMNS:
            raise too_many_columns(file_name, "some row", len(is_text))
    return datasets.Features(
        {name: datasets.Value("string") if text else datasets.Json() for name, text in is_text.items()}
    )


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
    taken = 0

    def counted() -> Iterator[str]:
        nonlocal taken
        for line in lines(path):
            taken += len(line)
            if taken > LARGEST_ROW_BYTES:
                raise too_large(path.name, place)
            yield line

    reader = csv.reader(counted(), strict=True)
    header: list[str] = []
    while True:
        place, taken = f"line {reader.line_num + 1}", 0
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise unreadable(path, place, str(error)) from error
        if record is None:
            break
        if not header:
            header = _header(path, place, record)
        elif record and len(record) != len(header):
            raise unreadable(path, place, f"{len(record)} fields where the header has {len(header)}")
        elif record:
            yield dict(zip(header, record, strict=True))
    if not header:
        raise unreadable(path, "line 1", "no header")


def _header(path: Path, place: str, record: list[str]) -> list[str]:
    if len(record) > MOST_COLUMNS:
        raise too_many_columns(path.name, place, len(record))
    if names := twice(record):
        raise unreadable(path, place, f"the column {', '.join(map(repr, names))} twice in the header")
    return record


def read_text(path: Path) -> Iterator[Row]:
    """Lines of a file that are not blank, each a row with the column "text"."""
    for line in lines(path):
        if line.strip():
            yield {"text": line.removesuffix("\n").removesuffix("\r")}


def read_xml(path: Path) -> Iterator[Row]:
    """A whole file as one row with the column "xml"."""
    if path.stat().st_size > LARGEST_ROW_BYTES:
        raise too_large(path.name, "the whole file")
    yield {"xml": "".join(lines(path)).replace("\r\n", "\n")}


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "json": read_json,
    "csv": read_csv,
    "text": read_text,
    "xml": read_xml,
}
"""The reader of each text format."""
