"""The modules of a model by name: its head, what an adapter can be put on, what a name means."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kfp_finetune.errors import Problem

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel

WHAT = "lora_config"
ALL_LINEAR = "all-linear"


def targets(model: "PreTrainedModel") -> list[str]:
    """The short names of a model's modules that an adapter can be put on, without the head's.

    Linear ones; of a model that has none, its convolutions.

    Args:
        model: Without an adapter.
    """
    from torch.nn import Conv2d

    kinds = (Conv2d,) if is_convolutional(model) else _linear_kinds()
    return list(dict.fromkeys(name.rpartition(".")[2] for name, module in _inner(model) if isinstance(module, kinds)))


def is_convolutional(model: "PreTrainedModel") -> bool:
    """Whether a model has no linear module but in its head.

    Args:
        model: Without an adapter.
    """
    return not any(isinstance(module, _linear_kinds()) for _, module in _inner(model))


def _linear_kinds() -> tuple[type, ...]:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return Linear, Conv1D


def _inner(model: "PreTrainedModel") -> "list[tuple[str, Module]]":
    head = heads(model)
    return [(name, module) for name, module in model.named_modules() if not inside(head, name)]


def heads(model: "PreTrainedModel") -> list[str]:
    """The modules that a model has for its task, on top of what it is without one.

    Args:
        model: Without an adapter.
    """
    children = {name: child for name, child in model.named_children() if any(True for _ in child.parameters())}
    prefix = model.base_model_prefix
    if prefix in children:
        return [name for name in children if name != prefix]
    return [name for name in children if name not in _base_children(model)]


def running_norms(model: "PreTrainedModel") -> list[str]:
    """The norms of a model that keep running figures of what they see in training.

    Args:
        model: Without an adapter.
    """
    from torch.nn.modules.batchnorm import _NormBase

    norms = ((name, module) for name, module in model.named_modules() if isinstance(module, _NormBase))
    return [name for name, module in norms if module.track_running_stats]


def _base_children(model: "PreTrainedModel") -> set[str]:
    """What a model without a task has, for those that are not built around one."""
    import torch
    import transformers

    try:
        with torch.device("meta"):
            base = transformers.AutoModel.from_config(model.config)
    except ValueError:
        return {name for name, _ in model.named_children()}
    return {name for name, _ in base.named_children()}


def is_meant(wanted: Sequence[str] | str, name: str) -> bool:
    """Whether a module's name is meant, as peft reads it: text is a regular expression, a list has the names' ends.

    Args:
        wanted: What the user gave.
        name: Of a module or a parameter.
    """
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(f".{name}".endswith(f".{end}") for end in wanted)


def inside(modules: Sequence[str], name: str) -> bool:
    """Whether a module or parameter is one of some modules, or in one.

    Args:
        modules: Their names.
        name: Its name.
    """
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def shared_weights(model: "PreTrainedModel") -> list[list[str]]:
    """The names of each parameter that a model uses in several places.

    Args:
        model: Without an adapter.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def misfits(given: Mapping[str, Any], model: "PreTrainedModel") -> list[Problem]:
    """A problem for every name that no module has, and for weights that the model uses in several places.

    peft passes over most such names, and an adapter would change one of the places.

    Args:
        given: The user's `lora_config`, its types checked.
        model: Without an adapter.
    """
    modules = [name for name, _ in model.named_modules()]
    problems = []
    for key, shown, wanted in _named(given):
        what = f"{WHAT}.{key}"
        try:
            meant = [name for name in modules if is_meant(wanted, name)]
        except re.error as error:
            problems.append(Problem(what, f"{shown!r}: {error}", "a regular expression", "Correct it."))
            continue
        if not meant:
            possible = ", ".join(targets(model)) or "nothing"
            allowed = f"what {type(model).__name__} has; an adapter can be put on {possible}"
            mend = "Correct it and run again; text alone is a regular expression for a module's whole name."
            problems.append(Problem(what, repr(shown), allowed, mend))
        elif shared := _shared(key, meant, model):
            allowed = f"other modules than {' and '.join(shared)}, which share their weights"
            problems.append(Problem(what, repr(shown), allowed, "Take it out."))
    return problems


def _named(given: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str] | str]]:
    """What the user names modules by: the parameter, what was given, and how `is_meant` reads it."""
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        wanted = given.get(key, [])
        if isinstance(wanted, list):
            yield from ((key, name, [name]) for name in wanted)
        elif wanted != ALL_LINEAR:
            yield key, wanted, wanted
    for key in ("rank_pattern", "alpha_pattern"):
        yield from ((key, pattern, rf"(.*\.)?({pattern})") for pattern in given.get(key, {}))


def _shared(key: str, meant: Sequence[str], model: "PreTrainedModel") -> list[str]:
    """The modules whose common weights would be changed in some of their places alone."""
    for names in shared_weights(model):
        modules = [name.rpartition(".")[0] for name in names]
        if key == "modules_to_save":
            changed = [name for name in modules if inside(meant, name)]
        else:
            weights = key == "target_modules" and names[0].endswith(".weight")
            changed = [name for name in modules if weights and name in meant]
        if changed and len(changed) < len(modules):
            return list(dict.fromkeys(modules))
    return []
