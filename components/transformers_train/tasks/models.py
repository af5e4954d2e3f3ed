"""Which transformer types a model has, by the tables of the installed transformers."""

from collections.abc import Mapping
from typing import Any

from kfp_finetune.components.transformers_train.tasks.needs import NEEDS
from kfp_finetune.errors import Problem

TABLES = {
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "AutoModelForImageClassification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
}
"""The name of transformers' table of the models that each type has."""


def types_of(model_type: str) -> list[str]:
    """The transformer types that there are for a kind of model, such as "bert"."""
    from transformers.models.auto import modeling_auto

    return [name for name, table in TABLES.items() if model_type in getattr(modeling_auto, table)]


def check_model(name: str, config: Mapping[str, Any]) -> Problem | None:
    """Whether a model can be loaded as a transformer type.

    Args:
        name: The transformer type.
        config: The model's config.json.

    Returns:
        What is wrong, if anything is.
    """
    if name not in NEEDS:
        return Problem("transformer_type", repr(name), f"one of {', '.join(TABLES)}", "Correct it and run again.")
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return Problem("model", "a config.json without model_type", "a model of transformers", "Save the model again.")
    both_ways = _reads_both_ways(model_type, config)
    there = [fit for fit in types_of(model_type) if not (both_ways and fit == "AutoModelForCausalLM")]
    if name in there:
        return None
    advice = f"Take transformer_type {' or '.join(there)}, or another model." if there else "Take another model."
    return Problem(
        "transformer_type", f"{name} for a model of the type {model_type}", ", ".join(there) or "none for it", advice
    )


def _reads_both_ways(model_type: str, config: Mapping[str, Any]) -> bool:
    """Whether a model sees the tokens behind a place too: it would learn to predict what it has before its eyes.

    Such models are made to find hidden tokens; transformers has them predict the next one only where their
    configuration says so.
    """
    says_so = any(config.get(name) for name in ("is_decoder", "is_encoder_decoder", "causal"))
    return "AutoModelForMaskedLM" in types_of(model_type) and not says_so


def known_labels(config: Mapping[str, Any]) -> list[str]:
    """The names of a model's labels by id, if it has been trained with some; those given by number alone are none.

    Args:
        config: The model's config.json.
    """
    named = config.get("id2label")
    if not isinstance(named, Mapping) or sorted(map(str, named)) != sorted(map(str, range(len(named)))):
        return []
    names = [str(named[key]) for key in sorted(named, key=int)]
    return [] if all(name == f"LABEL_{number}" for number, name in enumerate(names)) else names
