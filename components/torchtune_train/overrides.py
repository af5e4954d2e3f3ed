"""A user's own keys of torchtune's configuration, merged over ours."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from kfp_finetune.errors import Problem

PROTECTED = {
    "output_dir": "the volume's layout",
    "checkpointer": "the model and the volume's layout",
    "tokenizer": "the model",
    "dataset": "the dataset parameters",
    "metric_logger": "the pipeline's own reports",
    "resume_from_checkpoint": "what is found on the volume",
    "epochs": "the parameter epochs",
    "batch_size": "the parameter batch_size",
    "gradient_accumulation_steps": "the parameter gradient_accumulation_steps",
    "dtype": "the parameter dtype",
    "device": "the machine",
}
"""Keys that come from elsewhere, and from where."""

OPTIONAL = {
    "ac_mode",
    "ac_option",
    "cudnn_deterministic_mode",
    "custom_sharded_layers",
    "enable_activation_checkpointing",
    "enable_activation_offloading",
    "fsdp_cpu_offload",
    "fsdp_reshard_after_forward",
    "log_peak_memory_stats",
    "optimizer_in_bwd",
    "profiler",
}
"""Keys that the recipes read and our configuration leaves out."""


LIBRARIES = ("torch", "torchao", "torchtune", "bitsandbytes", "kfp_finetune")
"""Libraries whose functions and classes a configuration may name."""

LORA_ATTN_MODULES = ("q_proj", "k_proj", "v_proj", "output_proj")
"""torchtune's names of the attention's matrices that can have an adapter."""


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


def check_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[Problem]:
    """Every key that torchtune would not read, or that has a parameter of its own.

    Args:
        config: The configuration before the overrides.
        overrides: As the user gave them.
    """
    problems = []
    for key in nest(overrides):
        if key in PROTECTED:
            problems.append(
                Problem(
                    "overrides", repr(key), "keys without a parameter of their own", f"It comes from {PROTECTED[key]}."
                )
            )
        elif key not in config and key not in OPTIONAL:
            known = sorted((config.keys() | OPTIONAL) - PROTECTED.keys())
            problems.append(Problem("overrides", repr(key), ", ".join(known), "Correct the key or remove it."))
    if problems:
        return problems
    changed = merge(config, nest(overrides))
    return [problem for key in nest(overrides) for problem in _check_section(key, changed[key])]


def _check_section(key: str, section: Any) -> list[Problem]:
    """What is wrong with a component's name or arguments, before they are ever called."""
    if not isinstance(section, Mapping) or "_component_" not in section:
        return []
    name = str(section["_component_"])
    module, _, attribute = name.rpartition(".")
    try:
        if module.partition(".")[0] not in LIBRARIES:
            raise ImportError(name)
        accepted = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        allowed = f"a function or class of {', '.join(LIBRARIES)}"
        return [Problem(f"overrides.{key}._component_", repr(name), allowed, "Correct its dotted name.")]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    unknown = [argument for argument in section if argument != "_component_" and argument not in accepted]
    if unknown and not takes_any:
        wrong = ", ".join(repr(argument) for argument in unknown)
        return [Problem(f"overrides.{key}", wrong, f"arguments of {name}: {', '.join(accepted)}", "Correct the name.")]
    modules = section.get("lora_attn_modules", [])
    if not set(modules) <= set(LORA_ATTN_MODULES):
        allowed = f"some of {', '.join(LORA_ATTN_MODULES)}"
        return [Problem(f"overrides.{key}.lora_attn_modules", repr(modules), allowed, "Correct the names.")]
    return []
