"""Labels by name: the names are decided once, on the rows to train on, and every part's rows are read by them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.transformers_train.tasks.columns import quote
from kfp_finetune.errors import UserError, refuse

if TYPE_CHECKING:
    import datasets

MOST_LABELS = 100_000
MOST_SHOWN = 10


@dataclass(frozen=True)
class Labels:
    """The names of labels; a label's id is its name's place.

    Args:
        names: At least two, no two alike.
    """

    names: tuple[str, ...]

    @property
    def ids(self) -> dict[str, int]:
        """Each name's id."""
        return {name: number for number, name in enumerate(self.names)}

    def config(self) -> dict[str, Any]:
        """What the model's configuration says about them, for `from_pretrained`."""
        return {"num_labels": len(self.names), "id2label": dict(enumerate(self.names)), "label2id": self.ids}


def find_labels(
    rows: "datasets.Dataset",
    column: str,
    num_labels: int | None = None,
    known: Sequence[str] = (),
    place: Callable[[int], str] = "row {} (from 0) of the rows to train on".format,
) -> Labels:
    """The labels that a model is to tell apart.

    Those that a ClassLabel names, in its order; else those that occur, sorted, numbers by size. Whole numbers are
    their own ids where `num_labels` says how many there are. A model that knows all of them keeps its own order, so
    that what it has learned goes on to mean the same.

    Args:
        rows: To train on.
        column: With a label, or a list of labels, in each row.
        num_labels: How many there are to be; ids that no name is known for are called LABEL_0 and so on.
        known: The names of the model's labels by id, if it has been trained with some.
        place: Which row of its split a row is, for messages.

    Raises:
        UserError: If there are more than `num_labels`, fewer than two, or values that are no labels.
    """
    feature = label_feature(rows, column)
    occurring = list(getattr(feature, "names", None) or _occurring(rows, column, place))
    if set(occurring) <= set(known) and len(set(known)) == len(known) and num_labels in (None, len(known)):
        return _checked(list(known), column)
    numbers = all(_is_number(name) for name in occurring)
    names = occurring if hasattr(feature, "names") else sorted(occurring, key=int if numbers else None)
    if num_labels is not None:
        names = _exactly(names, num_labels, numbers, column)
    return _checked(names, column)


def _exactly(names: list[str], count: int, numbers: bool, column: str) -> list[str]:
    if numbers and names and min(map(int, names)) >= 0 and max(map(int, names)) < count:
        return [str(number) for number in range(count)]
    if len(names) > count:
        raise refuse(
            "num_labels",
            f"{count}, with {len(names)} labels in {column}: {_shown(names)}",
            f"at least {len(names)}",
            "Raise num_labels, or leave it out: the labels are then counted.",
        )
    fill = (name for number in range(len(names), 2 * count + 1) if (name := f"LABEL_{number}") not in names)
    return [*names, *(next(fill) for _ in range(count - len(names)))]


def _checked(names: list[str], column: str) -> Labels:
    if len(names) < 2:
        raise refuse(
            "dataset",
            f"{len(names)} label in {column}: {_shown(names)}",
            "at least two labels to tell apart",
            "Give rows of several labels, or set num_labels.",
        )
    return Labels(tuple(names))


def read_labels(values: Iterable[Any], feature: Any, labels: Labels, places: Iterable[str]) -> Iterator[int]:
    """The id of each value.

    Args:
        values: Of a column with labels.
        feature: Of the column: a ClassLabel's numbers are read by the names of their own part.
        labels: Of the rows to train on.
        places: Which row each is, for messages.

    Raises:
        UserError: If one is no label, or none of the rows to train on.
    """
    ids = labels.ids
    for value, place in zip(values, places, strict=True):
        name = label_name(value, feature, place)
        if name not in ids:
            raise refuse(
                "dataset",
                f"{place} whose label is {quote(name)}",
                f"one of the labels of the rows to train on: {_shown(labels.names)}",
                "Mend the row or leave it out, or give rows to train on that have this label.",
            )
        yield ids[name]


def label_name(value: Any, feature: Any, place: str) -> str:
    """The name of a label as a dataset has it.

    Args:
        value: Of the row.
        feature: Of the column.
        place: Which row it is, for messages.

    Raises:
        UserError: If it is no label.
    """
    names = getattr(feature, "names", None)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and names is not None and 0 <= value < len(names):
        return str(names[value])
    if isinstance(value, int) and names is None:
        return str(value)
    if isinstance(value, str) and value:
        return value
    raise refuse(
        "dataset",
        f"{place} whose label is {quote(value)}",
        f"the number of one of {len(names)} labels" if names else "text or a whole number as label in every row",
        "Mend the row or leave it out.",
    )


def label_feature(rows: "datasets.Dataset", column: str) -> Any:
    """The feature of a column's labels, or of the labels in its lists."""
    feature = rows.features[column]
    return getattr(feature, "feature", feature)


def _occurring(rows: "datasets.Dataset", column: str, place: Callable[[int], str]) -> Iterable[str]:
    feature = label_feature(rows, column)
    seen: dict[str, None] = {}
    number = 0
    for batch in rows.select_columns([column]).iter(batch_size=1000):
        for value in batch[column]:
            items = value if isinstance(value, list) else [value]
            seen |= {label_name(item, feature, place(number)): None for item in items}
            number += 1
        if len(seen) > MOST_LABELS:
            raise refuse(
                "dataset",
                f"more than {MOST_LABELS:,} different values in {column}",
                "labels, of which each is that of many rows",
                "Name the column of the labels in column_map.",
            )
    return seen


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isascii() and name.removeprefix("-").isdigit() and str(int(name)) == name


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return (", ".join(quote(name) for name in names[:MOST_SHOWN]) or "none") + more


def refuse_num_labels(name: str, num_labels: int | None) -> UserError | None:
    """The error for a number of labels where a task has none.

    Args:
        name: The transformer type.
        num_labels: What was given.
    """
    if num_labels is None:
        return None
    return refuse("num_labels", num_labels, f"nothing for {name}, which has no labels", "Leave num_labels out.")
