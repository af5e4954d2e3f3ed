"""What is peculiar to a transformer type, in one shape for all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from kfp_finetune.components.transformers_train.tasks.columns import check_columns, find_columns
from kfp_finetune.components.transformers_train.tasks.labels import Labels, find_labels, refuse_num_labels
from kfp_finetune.components.transformers_train.tasks.needs import needs_in_words
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings

if TYPE_CHECKING:
    import datasets
    import numpy as np

ProcessorKind = Literal["tokenizer", "fast tokenizer", "image processor"]
Figures = dict[str, float]


class Part(Protocol):
    """Rows to train on or to evaluate on."""

    @property
    def rows(self) -> "datasets.Dataset":
        """As the dataset's files have them."""

    def place(self, index: int) -> str:
        """Which row of its split a row of this part is, for messages."""


@dataclass(frozen=True)
class Shape:
    """How the rows of a dataset are read, decided on those to train on.

    Args:
        columns: The column for each of the task's keys.
        labels: What the model is to tell apart, if the task has labels.
    """

    columns: Mapping[str, str]
    labels: Labels | None = None


@dataclass(frozen=True)
class Evaluated:
    """What `Trainer` has of the held-out rows.

    Args:
        predictions: What `Task.keep` left of the model's outputs, row by row, filled up with -100.
        references: The labels, or the arrays that `Task.references` names.
        prepared: The held-out rows as `Task.prepare` made them, in the order of the predictions.
        labels: Of the shape.
        settings: What the user set.
    """

    predictions: "np.ndarray | Sequence[np.ndarray]"
    references: "np.ndarray | Sequence[np.ndarray]"
    prepared: "datasets.Dataset"
    labels: Labels | None
    settings: TaskSettings


@dataclass(frozen=True)
class Preparation:
    """What `Task.prepare` works with.

    Args:
        processor: The model's tokenizer or image processor, from `processors.load_processor`.
        shape: How the rows are read.
        settings: What the user set.
        held_out: Whether the rows are those to evaluate on.
        directory: Of the dataset, for files that its rows name.
    """

    processor: Any
    shape: Shape
    settings: TaskSettings
    held_out: bool = False
    directory: str | None = None


@dataclass(frozen=True)
class Task:
    """A transformer type.

    Args:
        name: As transformers calls it.
        processor: What turns a row into what the model reads.
        prepare: A part's rows as the model reads them, with labels, as a dataset that can be saved. Its column
            `cut_tokens`, where there is one, says how many tokens of a row were cut off.
        collator: What makes a batch of prepared rows, given the processor and the settings.
        keep: What is kept of a batch's outputs, given the batch's labels, so that an evaluation fits into memory;
            `Trainer` calls it `preprocess_logits_for_metrics`.
        metrics: The figures of the held-out rows.
        figures: Their names.
        best: The figure that says which of two models is better.
        greater_is_better: Whether the better one has more of it.
        has_labels: Whether the model tells labels apart.
        references: The columns that `Trainer` is to take for labels (`label_names`).
        arguments: Of `TrainingArguments`, those that the collator needs.
    """

    name: str
    processor: ProcessorKind
    prepare: Callable[[Part, Preparation], "datasets.Dataset"]
    collator: Callable[[Any, TaskSettings], Callable[[list[dict[str, Any]]], Any]]
    keep: Callable[[Any, Any], Any]
    metrics: Callable[[Evaluated], Figures]
    figures: tuple[str, ...]
    best: str
    greater_is_better: bool = True
    has_labels: bool = False
    references: tuple[str, ...] = ("labels",)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> str:
        """What columns are needed, in words."""
        return needs_in_words(self.name)

    def columns(self, rows: "datasets.Dataset", column_map: Mapping[str, str]) -> dict[str, str]:
        """The column for each of the task's keys; see `columns.find_columns`."""
        return find_columns(self.name, rows, column_map)

    def shape(self, part: Part, settings: TaskSettings, known: Sequence[str] = ()) -> Shape:
        """How rows are read.

        Args:
            part: The rows to train on.
            settings: What the user set.
            known: The names of the model's labels by id, if it has been trained with some.

        Raises:
            UserError: If columns or labels do not fit.
        """
        columns = self.columns(part.rows, settings.column_map)
        if not self.has_labels:
            if error := refuse_num_labels(self.name, settings.num_labels):
                raise error
            return Shape(columns)
        column = columns["labels" if "labels" in columns else "label"]
        return Shape(columns, find_labels(part.rows, column, settings.num_labels, known, part.place))

    def check(self, rows: "datasets.Dataset", shape: Shape) -> None:
        """Checks that other rows have a shape's columns; see `columns.check_columns`."""
        check_columns(self.name, rows, shape.columns)
