"""A part's rows, some at a time, as the rows that a model reads."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.transformers_train.tasks.columns import quote, undecoded
from kfp_finetune.components.transformers_train.tasks.task import Part
from kfp_finetune.errors import UserError, refuse
from kfp_finetune.tables import rows_at_once

if TYPE_CHECKING:
    import datasets

IGNORED = -100
"""Label of what the loss leaves out; torch's cross entropy ignores it by default."""

CUT = "cut_tokens"
"""The column with the number of a row's tokens that were cut off."""

Batch = Mapping[str, list[Any]]


def integers() -> Any:
    """The type of a column with a list of whole numbers."""
    import datasets

    return datasets.List(datasets.Value("int32"))


def map_rows(
    part: Part,
    columns: Sequence[str],
    encode: Callable[[Batch, list[str]], Mapping[str, list[Any]]],
    features: Mapping[str, Any],
) -> "datasets.Dataset":
    """Makes other rows of a part's rows.

    Args:
        part: The rows.
        columns: Those that are read.
        encode: Makes any number of rows of some, given their columns and places.
        features: The columns of what it makes.

    Raises:
        UserError: If none is left.
    """
    import datasets

    used = undecoded(part.rows.select_columns(list(dict.fromkeys(columns))))
    made = used.map(
        lambda batch, indices: dict(encode(batch, [part.place(index) for index in indices])),
        batched=True,
        batch_size=rows_at_once(used),
        with_indices=True,
        remove_columns=used.column_names,
        features=datasets.Features(dict(features)),
        load_from_cache_file=False,
    )
    if len(made) == 0:
        raise refuse(
            "dataset",
            f"{len(used)} rows ({part.place(0)} and so on), of which nothing is left to learn",
            "rows that are not empty",
            "Choose other rows or columns.",
        )
    return made


def texts(batch: Batch, column: str, places: Sequence[str]) -> list[str]:
    """A column's texts.

    Args:
        batch: Some rows.
        column: Of them.
        places: Which row each is, for messages.

    Raises:
        UserError: If a value is no text.
    """
    for value, place in zip(batch[column], places, strict=True):
        if not isinstance(value, str):
            raise refuse_row(place, f"whose {column} is {quote(value)}", "text in every row")
    return batch[column]


def refuse_row(place: str, what: str, allowed: str) -> UserError:
    """The error for one row.

    Args:
        place: Which it is.
        what: Is wrong with it.
        allowed: What would be accepted.
    """
    return refuse("dataset", f"{place} {what}", allowed, "Mend the row or leave it out.")
