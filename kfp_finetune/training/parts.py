"""The rows to train on and the rows held out: a dataset, divided alike by whoever trains on it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from kfp_finetune.datafiles import open_split
from kfp_finetune.errors import refuse
from kfp_finetune.lines import LARGEST_ROW_BYTES, too_large

if TYPE_CHECKING:
    import datasets

HELD_OUT_SEED = 42
"""The same rows are held out whatever else changes, so that losses of different trainings can be compared."""


def _leaves_rows(held_out: str) -> str:
    if held_out.endswith("%") and not 0 < float(held_out[:-1]) <= 50:
        raise ValueError("a share above 0% and up to 50%, or a split's name")
    return held_out


Split = Annotated[str, Field(pattern=r"^\w+(\[.*\])?$")]
"""The rows to train on: a split's name or a part of one, such as "train[:10%]"."""

HeldOut = Annotated[str, Field(pattern=r"^(\d+(\.\d+)?%|[A-Za-z_]\w*(\[.*\])?)$"), AfterValidator(_leaves_rows)]
"""The rows to evaluate on, never trained on: a share of the split ("5%") or another split ("test")."""


def share_of(held_out: str) -> float | None:
    """The share of a split's rows that is held out, or None if another split is."""
    return float(held_out[:-1]) / 100 if held_out.endswith("%") else None


@dataclass(frozen=True)
class Part:
    """Rows to train on or to evaluate on.

    Args:
        rows: As the dataset's files have them.
        numbers: Each row's number in its split.
        split: The split's name.
    """

    rows: "datasets.Dataset"
    numbers: Sequence[int]
    split: str

    def place(self, index: int) -> str:
        """Which row of its split a row of this part is, for messages."""
        return f"row {self.numbers[index]} (from 0) of {self.split}"


@contextmanager
def open_parts(directory: Path, split: str, held_out: str) -> Iterator[tuple[Part, Part]]:
    """The rows to train on and the rows held out.

    Args:
        directory: The published dataset.
        split: See `Split`.
        held_out: See `HeldOut`.

    Raises:
        UserError: If a split is not there, a part has no row, or the parts share rows.
    """
    share = share_of(held_out)
    with open_split(directory, split) as rows:
        whole = _whole(rows, split)
        if share is None:
            _check_apart(directory, split, held_out)
            with open_split(directory, held_out) as others:
                yield whole, _whole(others, held_out)
        elif len(rows) < 2:
            raise refuse("dataset", f"{len(rows)} rows", "at least 2 rows", "Give more rows.")
        else:
            yield _divide(whole, share)


def _check_apart(directory: Path, split: str, held_out: str) -> None:
    import datasets

    names = [{part.partition("[")[0] for part in spec.split("+")} for spec in (split, held_out)]
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
        for spec in (split, held_out)
    ]
    if not taken[0].isdisjoint(taken[1]):
        raise refuse(
            "held_out",
            f"{held_out!r}, of which {len(taken[0] & taken[1]):,} rows are also in split {split!r}",
            'rows that are not trained on: a share such as "5%", or another split',
            "Choose another split, or slices that do not overlap.",
        )


def check_sizes(rows: "datasets.Dataset", split: str) -> None:
    """Refuses rows of which one is too large to be read.

    Args:
        rows: Of a part, or some columns of them.
        split: Their split's name, for the message.

    Raises:
        UserError: If one is.
    """
    number = 0
    for batch in rows.data.to_batches():
        if batch.nbytes > LARGEST_ROW_BYTES:
            for index in range(batch.num_rows):
                if batch.slice(index, 1).nbytes > LARGEST_ROW_BYTES:
                    raise too_large(split, f"row {number + index} (from 0)")
        number += batch.num_rows


def _whole(rows: "datasets.Dataset", split: str) -> Part:
    if len(rows) == 0:
        raise refuse("dataset", f"no row in {split}", "at least one row in each part", "Change the split.")
    return Part(rows, range(len(rows)), split)


def _divide(whole: Part, held_out_share: float) -> tuple[Part, Part]:
    import datasets

    count = min(max(1, round(len(whole.rows) * held_out_share)), len(whole.rows) - 1)
    numbers = datasets.Dataset.from_dict({"number": list(whole.numbers)})
    sides = numbers.train_test_split(test_size=count, seed=HELD_OUT_SEED)
    train, held_out = sides["train"]["number"][:], sides["test"]["number"][:]
    return Part(whole.rows.select(train), train, whole.split), Part(whole.rows.select(held_out), held_out, whole.split)
