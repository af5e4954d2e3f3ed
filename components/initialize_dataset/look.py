"""A look at a dataset's rows before anything is trained on them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from kfp_finetune.components.initialize_dataset.rows import iterate_rows
from kfp_finetune.datafiles import DataFiles
from kfp_finetune.errors import UserError
from kfp_finetune.lines import MOST_COLUMNS, too_many_columns

LARGEST_LOOK = 200_000
"""Rows that are looked at; the report says if there are more."""

LARGEST_LOOK_CHARACTERS = 2_000_000_000
"""The same for few rows that are large: some minutes."""

MEMORY_BYTES = 512 * 2**20
"""What a look may take; a batch of rows, in Arrow and in Python, is seldom a tenth of this."""

TOO_LARGE = (
    f"rows that need more than {MEMORY_BYTES:,} bytes of memory to look at; allowed: less. "
    "Write smaller rows or row groups."
)

SHOWN_ROWS = 5
SHOWN_CHARACTERS = 10_000
"""Of each value; the report shows fewer."""


@dataclass(frozen=True)
class Look:
    """What the rows of a dataset look like.

    Args:
        rows: Rows that were looked at, by split.
        is_complete: Whether these are all.
        lengths: Characters of each row, names of columns not counted.
        empty: Rows that have nothing in a column, by column; every column is there.
        duplicates: Rows that are equal to an earlier one.
        with_empty: Rows that have nothing in at least one of their columns.
        samples: The first few rows, as text by column.
        problem: Why the look ended early; empty if it did not.
    """

    rows: Mapping[str, int]
    is_complete: bool
    lengths: list[int]
    empty: Mapping[str, int]
    duplicates: int
    with_empty: int
    samples: list[Mapping[str, str]]
    problem: str


def look_at(files: DataFiles, largest: int = LARGEST_LOOK, characters: int = LARGEST_LOOK_CHARACTERS) -> Look:
    """Reads a dataset's rows once.

    Args:
        files: Its files.
        largest: Rows after which to stop.
        characters: Characters after which to stop.
    """
    rows: Counter[str] = Counter()
    empty: Counter[str] = Counter()
    seen: set[bytes] = set()
    lengths: list[int] = []
    samples: list[Mapping[str, str]] = []
    with_empty, problem, is_complete = 0, "", True
    found = _rows(files)
    try:
        for split, row in islice(found, largest):
            texts = {column: _text(value) for column, value in row.items()}
            blank = [column for column, text in texts.items() if not text.strip()]
            empty.update(dict.fromkeys(texts, 0))
            empty.update(blank)
            if len(empty) > MOST_COLUMNS:
                raise too_many_columns(split, "some row", len(empty))
            with_empty += bool(blank)
            lengths.append(sum(map(len, texts.values())))
            seen.add(hashlib.blake2b(repr(sorted(texts.items())).encode(errors="replace"), digest_size=12).digest())
            rows[split] += 1
            if len(samples) < SHOWN_ROWS:
                samples.append({column: text[:SHOWN_CHARACTERS] for column, text in texts.items()})
            characters -= lengths[-1]
            if characters < 0:
                break
        is_complete = next(found, None) is None
    except UserError as error:
        problem = str(error.problems[0])
    except MemoryError:
        problem = TOO_LARGE
    except (ValueError, OSError) as error:
        problem = str(error)
    return Look(
        rows=dict(rows),
        is_complete=is_complete and not problem,
        lengths=lengths,
        empty=dict(empty),
        duplicates=len(lengths) - len(seen),
        with_empty=with_empty,
        samples=samples,
        problem=problem,
    )


def _rows(files: DataFiles) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for split, paths in files.splits.items():
        for path in paths:
            try:
                yield from ((split, row) for row in iterate_rows(files.format, path))
            except MemoryError as error:
                raise ValueError(f"{path.name}: {TOO_LARGE}") from error


def _text(value: Any) -> str:
    if value is None or value in ([], {}):
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_brief)


def _brief(value: Any) -> str:
    return f"<{len(value):,} bytes>" if isinstance(value, bytes) else str(value)
