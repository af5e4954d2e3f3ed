"""Rows of JSON files: one object a line, or one document that is read element by element."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfp_finetune.lines import (
    LARGEST_ROW_BYTES,
    MOST_COLUMNS,
    PIECE_BYTES,
    lines,
    pieces,
    too_large,
    too_many_columns,
    twice,
    unreadable,
)

EXACT_DIGITS = 18
"""Longer integers are kept as floats; the reader of `datasets` takes 64 bits."""

SPACE = re.compile(r"[ \t\n\r]*")
UNTERMINATED = "Unterminated string starting at"

HALF = "half of a surrogate pair, which is no character"

Row = dict[str, Any]


def read_json(path: Path) -> Iterator[Row]:
    """Rows of a file with one object a line, or with one array of objects, or with one object.

    Args:
        path: The file.

    Yields:
        The objects.

    Raises:
        UserError: If a line is not JSON, or not an object, or a row is too large.
    """
    if _Text(path).sign() == "[" or (path.suffix == ".json" and not _is_json(_first(path))):
        yield from _read_document(path)
        return
    for number, line in enumerate(lines(path), start=1):
        if line.strip():
            yield _object(path, f"line {number}", _parse(path, line.rstrip(), number))


def _read_document(path: Path) -> Iterator[Row]:
    text = _Text(path)
    if text.sign() != "[":
        yield _object(path, "element 0 (from 0)", text.value())
    else:
        text.step()
        number = 0
        while number or text.sign() != "]":
            yield _object(path, f"element {number} (from 0)", text.value())
            number += 1
            if text.sign() != ",":
                break
            text.step()
        if text.sign() != "]":
            raise text.error("Expecting ',' delimiter")
        text.step()
    if text.sign():
        raise text.error("Extra data")


class _Text:
    """The text of a file and a place in it; no more of it is in memory than a value and a piece.

    Args:
        path: The file.
    """

    def __init__(self, path: Path):
        self._path = path
        self._pieces = pieces(path)
        self._text = ""
        self._at = 0
        self._line, self._column = 1, 0

    def sign(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            space = SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def step(self) -> None:
        """Goes on to the next character."""
        self._at += 1

    def value(self) -> Any:
        """The JSON value that begins here.

        An error in what has been read so far may come from where it ends; one that stays with twice as much does not.

        Raises:
            UserError: If it is none, or too large.
        """
        self.sign()
        if self._at > PIECE_BYTES:
            self._forget()
        before: tuple[str, int] | None = None
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or not self._read():
                    break
            except json.JSONDecodeError as error:
                found = error.msg, error.pos
                if (found == before and error.msg != UNTERMINATED) or not self._read():
                    self._at = error.pos
                    raise self.error(error.msg) from error
                before = found
            except (ValueError, RecursionError) as error:
                raise unreadable(self._path, f"line {self._number()}", str(error)) from error
        if self._text.find("\\u", self._at, end) >= 0 and not _is_writable(value):
            raise unreadable(self._path, f"line {self._number()}", HALF)
        self._at = end
        return value

    def error(self, why: str) -> Exception:
        """The error for what is here."""
        start = self._text.rfind("\n", 0, self._at)
        column = self._at - start + (0 if start >= 0 else self._column)
        return unreadable(self._path, f"line {self._number()}", f"{why} at column {column}")

    def _number(self) -> int:
        """Of the line."""
        return self._line + self._text.count("\n", 0, self._at)

    def _forget(self) -> None:
        """Lets go of what is before the place."""
        gone, self._text = self._text[: self._at], self._text[self._at :]
        self._line += gone.count("\n")
        self._column = len(gone) - gone.rfind("\n") - 1 + (0 if "\n" in gone else self._column)
        self._at = 0

    def _read(self) -> bool:
        """Reads as much again as there is from here, and says whether there was more."""
        if self._at == len(self._text):
            self._forget()
        ahead = len(self._text) - self._at
        if ahead > LARGEST_ROW_BYTES:
            raise too_large(self._path.name, f"line {self._number()}")
        more = []
        for _ in range(max(1, ahead // PIECE_BYTES)):
            if (piece := next(self._pieces, None)) is None:
                break
            more.append(piece)
        self._text += "".join(more)
        return bool(more)


def _first(path: Path) -> str:
    return next((line for line in lines(path) if line.strip()), "")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(path: Path, text: str, line: int) -> Any:
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise unreadable(path, f"line {line + error.lineno - 1}", f"{error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise unreadable(path, f"line {line}", str(error)) from error
    if "\\u" in text and not _is_writable(value):
        raise unreadable(path, f"line {line}", HALF)
    return value


def _is_writable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"the name {twice(name for name, _ in pairs)[0]!r} twice in an object")
    return row


def _integer(digits: str) -> int | float | None:
    return int(digits) if len(digits) <= EXACT_DIGITS else _finite(digits)


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _object(path: Path, place: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise unreadable(path, place, f"{str(value)[:40]!r} where an object with columns is expected")
    if len(value) > MOST_COLUMNS:
        raise too_many_columns(path.name, place, len(value))
    return value


DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite, parse_constant=lambda _: None
)
