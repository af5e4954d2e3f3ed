"""A user's own keys of torchtune's configuration, merged over ours, and checked before anything is trained."""

import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from kfp_finetune.components.torchtune_train.names import CHUNKED_LOSS, SCHEDULERS
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.errors import Problem

SETTINGS = frozenset(TrainSettings.__dataclass_fields__) - {"optimizer", "lr_scheduler", "overrides"}
"""Keys of torchtune's that are settings of ours by the same name."""

PROTECTED = {
    "output_dir": "the volume's layout",
    "checkpointer": "the model and the volume's layout",
    "tokenizer": "the model",
    "dataset": "the dataset parameters",
    "metric_logger": "the setting metric_loggers",
    "log_every_n_steps": "the reports, which show every step",
    "resume_from_checkpoint": "what is found on the volume",
    "device": "the machine",
    "model": "the model and the settings lora_rank, lora_alpha and so on",
    "tensor_parallel_plan": "the setting tensor_parallel_dim",
    **{name: f"the setting {name}" for name in SETTINGS},
}
"""Keys that come from elsewhere, and from where."""

SECTIONS: Mapping[str, Sequence[str]] = {
    "optimizer": (
        *(f"torch.optim.{name}" for name in ("AdamW", "Adam", "NAdam", "RAdam", "RMSprop", "SGD")),
        *(f"torchao.optim.{name}" for name in ("AdamW8bit", "Adam8bit")),
    ),
    "lr_scheduler": tuple(SCHEDULERS.values()),
    "loss": (CHUNKED_LOSS, "torch.nn.CrossEntropyLoss"),
}
"""Keys whose values name a function or class and its arguments, and those that were seen to train."""

SETTINGS_AS_ARGUMENTS = ("lr", "weight_decay", "num_warmup_steps", "num_output_chunks")
"""Arguments that are settings of ours."""

FIXED = frozenset(
    {
        *SETTINGS_AS_ARGUMENTS,
        "params", "optimizer", "num_training_steps", "last_epoch",  # given by the recipes
        "fused", "foreach", "capturable", "differentiable", "maximize",  # not all can take weights that are shared out
        "ignore_index", "reduction", "size_average", "reduce",  # without which the losses mean something else
    }
)  # fmt: skip
"""Arguments that are not free."""

PLAIN: Mapping[str, Any] = {
    "shuffle": bool,
    "log_peak_memory_stats": bool,
    "cudnn_deterministic_mode": Literal["default", "warn", "error"],
    "fsdp_reshard_after_forward": bool,
    "custom_sharded_layers": list[Literal["tok_embeddings", "output"]],
    "optimizer_in_bwd": bool,
}
"""The other keys that the recipes read, and the type of each."""


def nest(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Turns dotted keys into nested ones: {"a.b": 1} becomes {"a": {"b": 1}}."""
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        head, _, tail = key.partition(".")
        value = nest({tail: value}) if tail else nest(value) if isinstance(value, Mapping) else value
        nested[head] = merge(nested[head], value) if isinstance(nested.get(head), dict) else value
    return nested


def merge(config: Mapping[str, Any], changes: Any) -> Any:
    """The configuration with changes laid over it, key by key."""
    if not isinstance(changes, Mapping):
        return changes
    merged = dict(config)
    for key, value in changes.items():
        merged[key] = merge(merged[key], value) if isinstance(merged.get(key), Mapping) else value
    return merged


def apply_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with a user's own keys laid over it.

    Where a function or class is exchanged for another, what is a setting stays.

    Args:
        config: Ours.
        overrides: As the user gave them, without problems.
    """
    changed = dict(config)
    for key, value in nest(overrides).items():
        ours = changed.get(key)
        if isinstance(value, Mapping) and isinstance(ours, Mapping) and "_component_" in value:
            accepted = _parameters(value["_component_"])
            ours = {name: ours[name] for name in SETTINGS_AS_ARGUMENTS if name in ours and name in accepted}
        changed[key] = merge(ours, value) if isinstance(ours, Mapping) else value
    return changed


def check_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[Problem]:
    """Every key that torchtune would not read, that has a setting of its own, or whose value is of the wrong kind.

    Args:
        config: The configuration before the overrides.
        overrides: As the user gave them.
    """
    return [
        problem for key, value in nest(overrides).items() for problem in _check_key(key, value, config.get(key, {}))
    ]


def _check_key(key: str, value: Any, ours: Any) -> list[Problem]:
    if key in PROTECTED:
        allowed = "keys without a setting of their own"
        return [Problem("overrides", repr(key), allowed, f"It comes from {PROTECTED[key]}.")]
    if key in PLAIN:
        return _check_type(f"overrides.{key}", value, PLAIN[key])
    if key not in SECTIONS:
        allowed = ", ".join(sorted({*PLAIN, *SECTIONS}))
        return [Problem("overrides", repr(key), allowed, "Correct the key or take it out.")]
    if not isinstance(value, Mapping):
        return [Problem(f"overrides.{key}", repr(value), "an object", f"Name what of {key} is to be changed.")]
    name = value.get("_component_", ours["_component_"])
    if name not in SECTIONS[key]:
        allowed = " or ".join(SECTIONS[key])
        return [Problem(f"overrides.{key}._component_", repr(name), allowed, "Choose one of these.")]
    return _check_arguments(f"overrides.{key}", name, value)


def _check_arguments(place: str, name: str, given: Mapping[str, Any]) -> list[Problem]:
    free = {argument: kind for argument, kind in _parameters(name).items() if argument not in FIXED}
    problems = []
    for argument, value in given.items():
        if argument in free:
            problems += _check_type(f"{place}.{argument}", value, free[argument])
        elif argument != "_component_":
            mend = f"{argument} is a setting, or given by the recipe." if argument in FIXED else "Correct the name."
            problems.append(Problem(place, repr(argument), f"arguments of {name}: {', '.join(free) or 'none'}", mend))
    return problems


def _parameters(name: str) -> dict[str, Any]:
    """The arguments of one of `SECTIONS`' functions or classes, and the type of each."""
    module, _, attribute = name.rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), attribute), eval_str=True)
    return {
        name: Any if parameter.annotation is parameter.empty else parameter.annotation
        for name, parameter in signature.parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def _check_type(place: str, value: Any, kind: Any) -> list[Problem]:
    """What is wrong with a value; as JSON, in which a list can stand for a tuple but no text for a number."""
    try:
        TypeAdapter(kind, config={"arbitrary_types_allowed": True}).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        allowed = "; ".join(dict.fromkeys(details["msg"] for details in error.errors()))
        return [Problem(place, repr(value), allowed, "Correct the value or take it out.")]
    return []
