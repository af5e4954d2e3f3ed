"""Plain text, of which some tokens are hidden and predicted from all others."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kfp_finetune.components.transformers_train.tasks.outputs import likeliest
from kfp_finetune.components.transformers_train.tasks.rows import IGNORED, Batch, integers, map_rows, texts
from kfp_finetune.components.transformers_train.tasks.scores import first_array
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.task import Evaluated, Figures, Part, Preparation, Task
from kfp_finetune.components.transformers_train.tasks.tokenizing import input_names

if TYPE_CHECKING:
    import datasets

SPECIAL = "special_tokens_mask"


def prepare(part: Part, preparation: Preparation) -> "datasets.Dataset":
    """Tokens of each text; a long one is several rows, and a blank one none.

    The rows to train on are masked anew whenever they are read, the rows held out once, here, so that every evaluation
    asks the same.
    """
    column, tokenizer = preparation.shape.columns["text"], preparation.processor

    def encode(batch: Batch, places: list[str]) -> Mapping[str, list[Any]]:
        encoded = tokenizer(
            texts(batch, column, places),
            truncation=True,
            max_length=preparation.settings.max_seq_len,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
        )
        encoded.pop("overflow_to_sample_mapping")
        kept = [number for number, special in enumerate(encoded[SPECIAL]) if not all(special)]
        return {name: [values[number] for number in kept] for name, values in encoded.items()}

    features = dict.fromkeys([*input_names(tokenizer), SPECIAL], integers())
    made = map_rows(part, [column], encode, features)
    return _masked(made, tokenizer, preparation.settings) if preparation.held_out else made


def _masked(rows: "datasets.Dataset", tokenizer: Any, settings: TaskSettings) -> "datasets.Dataset":
    """Rows masked for good, each by itself; of each at least one token."""
    mask = _masker(tokenizer, settings.mlm_probability, settings.seed)

    def mask_row(row: dict[str, Any]) -> dict[str, list[int]]:
        made = mask([row])
        return {name: made[name][0].tolist() for name in ("input_ids", "labels")}

    features = rows.features.copy()
    features["labels"] = features.pop(SPECIAL)
    return rows.map(mask_row, remove_columns=[SPECIAL], features=features, load_from_cache_file=False)


def _masker(tokenizer: Any, probability: float, seed: int | None = None) -> Callable[[list[dict[str, Any]]], Any]:
    """Masks and fills up rows; where chance would hide no token, and the loss be no number, it is asked again."""
    from transformers import DataCollatorForLanguageModeling

    mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=probability, seed=seed)

    def some(rows: list[dict[str, Any]]) -> Any:
        made = mask(rows)
        while not bool((made["labels"] != IGNORED).any()):
            made = mask(rows)
        return made

    return some


def collator(tokenizer: Any, settings: TaskSettings) -> Callable[[list[dict[str, Any]]], Any]:
    """Masks rows to train on, and fills rows up to the longest of the batch."""
    from transformers import DataCollatorForTokenClassification

    mask, fill = _masker(tokenizer, settings.mlm_probability), DataCollatorForTokenClassification(tokenizer)
    return lambda rows: fill(rows) if "labels" in rows[0] else mask(rows)


def metrics(evaluated: Evaluated) -> Figures:
    """How many of the hidden tokens are found."""
    predicted, true = first_array(evaluated.predictions), first_array(evaluated.references)
    hidden = true != IGNORED
    return {"masked_accuracy": float(np.mean(predicted[hidden] == true[hidden]))}


TASK = Task(
    name="AutoModelForMaskedLM",
    processor="fast tokenizer",
    prepare=prepare,
    collator=collator,
    keep=likeliest,
    metrics=metrics,
    figures=("masked_accuracy",),
    best="masked_accuracy",
    arguments={"remove_unused_columns": False},  # the collator reads which tokens are special
)
