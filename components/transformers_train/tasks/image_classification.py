"""Pictures and their labels."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.transformers_train.tasks.labels import label_feature, read_labels
from kfp_finetune.components.transformers_train.tasks.outputs import likeliest
from kfp_finetune.components.transformers_train.tasks.pictures import open_picture, picture_bytes
from kfp_finetune.components.transformers_train.tasks.rows import Batch, map_rows
from kfp_finetune.components.transformers_train.tasks.scores import row_figures
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.task import Part, Preparation, Task

if TYPE_CHECKING:
    import datasets

PICTURE = "picture"


def prepare(part: Part, preparation: Preparation) -> "datasets.Dataset":
    """Each row's picture as its file's bytes: as numbers it would take many times the room."""
    import datasets

    columns, labels = preparation.shape.columns, preparation.shape.labels
    assert labels is not None
    feature = label_feature(part.rows, columns["label"])
    directory = None if preparation.directory is None else Path(preparation.directory)

    def encode(batch: Batch, places: list[str]) -> Mapping[str, list[Any]]:
        given = zip(batch[columns["image"]], places, strict=True)
        pictures = [picture_bytes(value, directory, place) for value, place in given]
        return {PICTURE: pictures, "labels": list(read_labels(batch[columns["label"]], feature, labels, places))}

    features = {PICTURE: datasets.Value("large_binary"), "labels": datasets.Value("int64")}
    return map_rows(part, list(columns.values()), encode, features)


def collator(processor: Any, settings: TaskSettings) -> Callable[[list[dict[str, Any]]], Any]:
    """Opens a batch's pictures and gives them to the model's image processor."""
    import torch

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        pictures = [open_picture(row[PICTURE]) for row in rows]
        return {
            **processor(images=pictures, return_tensors="pt"),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }

    return collate


TASK = Task(
    name="AutoModelForImageClassification",
    processor="image processor",
    prepare=prepare,
    collator=collator,
    keep=likeliest,
    metrics=row_figures,
    figures=("accuracy", "f1"),
    best="accuracy",
    has_labels=True,
    arguments={"remove_unused_columns": False},  # the model knows no column of files' bytes
)
