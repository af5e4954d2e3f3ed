"""The rows to train on and the rows held out, of a kind that is decided once for both."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import datasets

from kfp_finetune.components.torchtune_train.conversations import Shape, check_columns, find_shape
from kfp_finetune.components.torchtune_train.settings import DataSettings
from kfp_finetune.datafiles import open_split
from kfp_finetune.errors import refuse
from kfp_finetune.lines import LARGEST_ROW_BYTES, too_large

HELD_OUT_SEED = 42
"""The same rows are held out whatever else changes, so that losses of different trainings can be compared."""


@dataclass(frozen=True)
class Part:
    """Rows to train on or to evaluate on.

    Args:
        rows: As the dataset's files have them.
        numbers: Each row's number in its split.
        split: The split's name.
    """

    rows: datasets.Dataset
    numbers: Sequence[int]
    split: str

    def place(self, index: int) -> str:
        """Which row of its split a row of this part is, for messages."""
        return f"row {self.numbers[index]} (from 0) of {self.split}"


@dataclass(frozen=True)
class Parts:
    """A dataset, divided.

    Args:
        train: To train on.
        held_out: To evaluate on.
        shape: How the rows of both are read.
    """

    train: Part
    held_out: Part
    shape: Shape


@contextmanager
def open_parts(directory: Path, data: DataSettings) -> Iterator[Parts]:
    """The rows to train on and the rows held out.

    Args:
        directory: The published dataset.
        data: Which rows, of which kind, and in which columns.

    Raises:
        UserError: If a split or column is not there, a part has no row, or a row is too large to be read.
    """
    with open_split(directory, data.split) as rows:
        whole = _whole(rows, data.split)
        shape = find_shape(rows.column_names, data)
        _check_sizes(shape.select(rows), data.split)
        if data.held_out_share is None:
            _check_apart(directory, data)
            with open_split(directory, data.held_out) as held_out:
                check_columns(shape, held_out.column_names)
                _check_sizes(shape.select(held_out), data.held_out)
                yield Parts(whole, _whole(held_out, data.held_out), shape)
        elif len(rows) < 2:
            raise refuse("dataset", f"{len(rows)} rows", "at least 2 rows", "Give more rows.")
        else:
            yield Parts(*_divide(whole, data.held_out_share), shape)


def _check_apart(directory: Path, data: DataSettings) -> None:
    names = [{part.partition("[")[0] for part in spec.split("+")} for spec in (data.split, data.held_out)]
    if names[0].isdisjoint(names[1]):
        return
    lengths = {}
    for name in names[0] | names[1]:
        with open_split(directory, name) as rows:
            lengths[name] = len(rows)
    taken = [
        {
            (part.splitname, number)
            for part in datasets.ReadInstruction.from_spec(spec).to_absolute(lengths)
            for number in range(part.from_, part.to)
        }
        for spec in (data.split, data.held_out)
    ]
    if not taken[0].isdisjoint(taken[1]):
        raise refuse(
            "held_out",
            f"{data.held_out!r}, of which {len(taken[0] & taken[1]):,} rows are also in split {data.split!r}",
            'rows that are not trained on: a share such as "5%", or another split',
            "Choose another split, or slices that do not overlap.",
        )


def _check_sizes(rows: datasets.Dataset, split: str) -> None:
    number = 0
    for batch in rows.data.to_batches():
        if batch.nbytes > LARGEST_ROW_BYTES:
            for index in range(batch.num_rows):
                if batch.slice(index, 1).nbytes > LARGEST_ROW_BYTES:
                    raise too_large(split, f"row {number + index} (from 0)")
        number += batch.num_rows


def _whole(rows: datasets.Dataset, split: str) -> Part:
    if len(rows) == 0:
        raise refuse("dataset", f"no row in {split}", "at least one row in each part", "Change the split.")
    return Part(rows, range(len(rows)), split)


def _divide(whole: Part, held_out_share: float) -> tuple[Part, Part]:
    count = min(max(1, round(len(whole.rows) * held_out_share)), len(whole.rows) - 1)
    numbers = datasets.Dataset.from_dict({"number": list(whole.numbers)})
    sides = numbers.train_test_split(test_size=count, seed=HELD_OUT_SEED)
    train, held_out = sides["train"]["number"][:], sides["test"]["number"][:]
    return Part(whole.rows.select(train), train, whole.split), Part(whole.rows.select(held_out), held_out, whole.split)
