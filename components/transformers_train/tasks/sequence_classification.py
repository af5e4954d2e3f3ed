"""Texts, or pairs of texts, and their labels."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.transformers_train.tasks.labels import label_feature, read_labels
from kfp_finetune.components.transformers_train.tasks.outputs import likeliest
from kfp_finetune.components.transformers_train.tasks.rows import CUT, Batch, integers, map_rows, refuse_row, texts
from kfp_finetune.components.transformers_train.tasks.scores import row_figures
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.task import Part, Preparation, Task
from kfp_finetune.components.transformers_train.tasks.tokenizing import encode_cut, input_names

if TYPE_CHECKING:
    import datasets


def prepare(part: Part, preparation: Preparation) -> "datasets.Dataset":
    """Tokens of each row, a pair as the tokenizer joins it, cut where they are too long."""
    import datasets

    columns, labels = preparation.shape.columns, preparation.shape.labels
    assert labels is not None
    feature = label_feature(part.rows, columns["label"])

    def encode(batch: Batch, places: list[str]) -> Mapping[str, list[Any]]:
        given = [texts(batch, columns[key], places) for key in ("text", "text_pair") if key in columns]
        encoded, cut = encode_cut(preparation.processor, preparation.settings.max_seq_len, *given)
        for row, place in zip(encoded["input_ids"], places, strict=True):
            if not row:
                raise refuse_row(place, "of whose text no token is made", "text that is not empty in every row")
        ids = list(read_labels(batch[columns["label"]], feature, labels, places))
        return {**encoded, "labels": ids, CUT: cut}

    features = dict.fromkeys(input_names(preparation.processor), integers())
    features |= {"labels": datasets.Value("int64"), CUT: datasets.Value("int64")}
    return map_rows(part, list(columns.values()), encode, features)


def collator(tokenizer: Any, settings: TaskSettings) -> Callable[[list[dict[str, Any]]], Any]:
    """Fills rows up to the longest of the batch."""
    from transformers import DataCollatorWithPadding

    return DataCollatorWithPadding(tokenizer)


TASK = Task(
    name="AutoModelForSequenceClassification",
    processor="tokenizer",
    prepare=prepare,
    collator=collator,
    keep=likeliest,
    metrics=row_figures,
    figures=("accuracy", "f1"),
    best="f1",
    has_labels=True,
)
