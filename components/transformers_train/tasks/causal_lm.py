"""Plain text, of which every token is predicted from those before it."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kfp_finetune.components.transformers_train.tasks.outputs import first
from kfp_finetune.components.transformers_train.tasks.rows import IGNORED, Batch, integers, map_rows, texts
from kfp_finetune.components.transformers_train.tasks.scores import first_array
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.task import Evaluated, Figures, Part, Preparation, Task

if TYPE_CHECKING:
    import datasets

LARGEST_LOSS = 700.0
"""e to the power of more is no number of 64 bits."""


def prepare(part: Part, preparation: Preparation) -> "datasets.Dataset":
    """Tokens of each text with the end token behind it; a long one is several rows, and a blank one none."""
    from kfp_finetune.chat import encode_texts

    column, longest = preparation.shape.columns["text"], preparation.settings.max_seq_len

    def encode(batch: Batch, places: list[str]) -> Mapping[str, list[Any]]:
        whole = [row.tokens for row in encode_texts(preparation.processor, texts(batch, column, places))]
        pieces = [piece for ids in whole for begin in range(0, len(ids), longest) if (piece := ids[begin:][:longest])]
        kept = [piece for piece in pieces if len(piece) > 1]
        return {"input_ids": kept, "attention_mask": [[1] * len(piece) for piece in kept], "labels": kept}

    return map_rows(part, [column], encode, dict.fromkeys(("input_ids", "attention_mask", "labels"), integers()))


def collator(tokenizer: Any, settings: TaskSettings) -> Callable[[list[dict[str, Any]]], Any]:
    """Fills rows up by place: an end token that is the padding token too is learned all the same."""
    from transformers import DataCollatorForTokenClassification

    return DataCollatorForTokenClassification(tokenizer)


def losses(logits: Any, labels: Any) -> Any:
    """Each token's loss, given those before it; 0 where nothing is predicted."""
    from torch.nn.functional import cross_entropy

    scores = first(logits)[:, :-1].float()
    return cross_entropy(scores.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none")


def metrics(evaluated: Evaluated) -> Figures:
    """Perplexity of all tokens of the held-out texts."""
    predicted = first_array(evaluated.references)[:, 1:] != IGNORED
    loss = first_array(evaluated.predictions)[:, : predicted.shape[1]]
    mean = float(np.sum(loss, where=predicted, dtype=np.float64)) / int(np.sum(predicted))
    return {"perplexity": math.exp(min(mean, LARGEST_LOSS))}


TASK = Task(
    name="AutoModelForCausalLM",
    processor="tokenizer",
    prepare=prepare,
    collator=collator,
    keep=losses,
    metrics=metrics,
    figures=("perplexity",),
    best="perplexity",
    greater_is_better=False,
)
