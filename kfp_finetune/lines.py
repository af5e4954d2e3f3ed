"""Files of text, read with no more of them in memory than a row."""

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from kfp_finetune.errors import UserError, refuse

BYTE_ORDER_MARK = "\ufeff"
PIECE_BYTES = 2**20

LARGEST_ROW_BYTES = 16 * 2**20
"""Some four million tokens: no model takes them, and a file whose line never ends would fill the memory."""

MOST_COLUMNS = 10_000
"""The names of more would take more time and memory than the rows."""

LARGEST_NOTE_BYTES = 64 * 2**20
"""The index of a model of a million tensors is not as large."""


def lines(path: Path) -> Iterator[str]:
    """The lines of a file in UTF-8, with their ends and without a byte order mark.

    Raises:
        UserError: If a line is no UTF-8, or longer than `LARGEST_ROW_BYTES`.
    """
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LARGEST_ROW_BYTES + 1), b""), start=1):
            if len(line) > LARGEST_ROW_BYTES:
                raise too_large(path.name, f"line {number}")
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise _no_utf8(path, number, error) from error
            yield text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text


def pieces(path: Path) -> Iterator[str]:
    """The text of a file in UTF-8 in pieces of no meaning, without a byte order mark.

    Raises:
        UserError: If it is no UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    line = 1
    with path.open("rb") as file:
        while True:
            piece = file.read(PIECE_BYTES)
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                raise _no_utf8(path, line + error.object[: error.start].count(b"\n"), error) from error
            if not piece:
                return
            line += text.count("\n")
            yield text


def small_text(what: str, path: Path) -> str:
    """The text of a file that says something about others, and is read whole.

    Args:
        what: Name of the parameter that asked for it, for messages.
        path: The file.

    Raises:
        UserError: If it is larger than any such file.
        ValueError: If it is no UTF-8.
    """
    size = path.stat().st_size
    if size > LARGEST_NOTE_BYTES:
        raise refuse(
            what,
            f"{path.name} of {size:,} bytes",
            f"at most {LARGEST_NOTE_BYTES:,} bytes",
            "Look at what the file holds, and fetch it again.",
        )
    return path.read_text(encoding="utf-8")


def unreadable(path: Path, place: str, why: str) -> UserError:
    """The error for a file that cannot be read.

    Args:
        path: The file.
        place: Where in it, such as "line 3".
        why: What is wrong there.
    """
    return refuse(
        "dataset",
        f"{path.name}, {place}, which cannot be read: {why}",
        "files in UTF-8 whose every row is whole",
        "Mend the file.",
    )


def too_large(name: str, place: str) -> UserError:
    """The error for a row that is too large.

    Args:
        name: Of the file or split.
        place: Where in it.
    """
    return refuse(
        "dataset",
        f"{name}, {place}, a row of more than {LARGEST_ROW_BYTES:,} bytes",
        f"rows of at most {LARGEST_ROW_BYTES:,} bytes",
        "Divide the row into smaller ones, or leave it out.",
    )


def too_many_columns(name: str, place: str, count: int) -> UserError:
    """The error for rows with so many columns that they are none.

    Args:
        name: Of the file.
        place: Where in it.
        count: Of the columns.
    """
    return refuse(
        "dataset",
        f"{name}, {place}, with which there are {count:,} columns",
        f"at most {MOST_COLUMNS:,} columns",
        "Write each row as one object or record of the same few columns.",
    )


def twice(names: Iterable[str]) -> list[str]:
    """The names that are there more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _no_utf8(path: Path, line: int, error: UnicodeDecodeError) -> UserError:
    return unreadable(path, f"line {line}", f"text that is not UTF-8: {error}")
