"""The rows to train on and the rows held out, of a kind that is decided once for both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kfp_finetune.components.torchtune_train.conversations import Shape, check_columns, find_shape
from kfp_finetune.components.torchtune_train.settings import DataSettings
from kfp_finetune.training import parts
from kfp_finetune.training.parts import Part, check_sizes


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
    with parts.open_parts(directory, data.split, data.held_out) as (train, held_out):
        shape = find_shape(train.rows.column_names, data)
        check_columns(shape, held_out.rows.column_names)
        for part in train, held_out:
            check_sizes(shape.select(part.rows), part.split)
        yield Parts(train, held_out, shape)
