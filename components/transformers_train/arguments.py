"""What is wrong with the user's `training_arguments`, known before a GPU is asked for.

The names and types are those of the installed transformers, so that its arguments need no list here; only those that
are not for a user to set have one.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from enum import Enum
from fnmatch import fnmatchcase
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from kfp_finetune.components.transformers_train.arguments_trial import TEXT_TYPE, try_arguments
from kfp_finetune.errors import Problem

WHAT = "training_arguments"
LEARNING_RATE = 5e-5
OWN_PARAMETER: Mapping[str, str] = {
    "num_train_epochs": "epochs",
    "max_steps": "epochs",
    "per_device_train_batch_size": "batch_size",
    "auto_find_batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "bf16": "dtype",
    "fp16": "dtype",
    "bf16_full_eval": "dtype",
    "fp16_full_eval": "dtype",
    "fsdp": 'strategy ("ddp" or "fsdp")',
    "fsdp_config": 'strategy ("ddp" or "fsdp")',
    "deepspeed": 'strategy ("ddp" or "fsdp")',
    "parallelism_config": 'strategy ("ddp" or "fsdp")',
    "seed": "advanced.seed",
    "data_seed": "advanced.seed",
    "save_total_limit": "advanced.keep_last_n_checkpoints",
    "load_best_model_at_end": "advanced.export_checkpoint",
    "metric_for_best_model": "advanced.export_checkpoint",
    "greater_is_better": "advanced.export_checkpoint",
}
"""The parameter that says what an argument of transformers would say."""

DECIDED: Mapping[str, tuple[str, ...]] = {
    "the step itself decides where and when a training is saved, and goes on from what is saved": (
        "output_dir", "save_*", "enable_jit_checkpoint", "resume_from_checkpoint", "ignore_data_skip",
        "restore_callback_states_from_checkpoint",
    ),
    "the step itself evaluates after each epoch, with the figures of the transformer_type": (
        "eval_strategy", "evaluation_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_do_concat_batches",
        "eval_use_gather_object", "prediction_loss_only", "batch_eval_metrics", "include_for_metrics", "do_*",
    ),
    "the figures of every step are written anyway": (
        "report_to", "run_name", "project", "trackio_*", "log_*", "logging_*", "disable_tqdm", "debug",
        "include_num_input_tokens_seen", "include_tokens_per_second", "skip_memory_metrics",
    ),
    "nothing is sent to the Hub by this step, and no token belongs into a pipeline's parameters": (
        "push_to_hub*", "hub_*",
    ),
    "the transformer_type says which columns the model reads": ("remove_unused_columns", "label_names"),
    "all rows count, those to train on and those held out": ("dataloader_drop_last",),
    "the step's launcher decides which processes train on what": (
        "local_rank", "ddp_backend", "use_cpu", "no_cuda", "accelerator_config",
    ),
}  # fmt: skip
"""Why arguments are not for a user to set, and their names."""

INSTEAD: Mapping[str, str] = {
    "warmup_ratio": "Give warmup_steps: below 1 it is a share of all steps.",
    "group_by_length": 'Give "train_sampling_strategy": "batch_rebalance".',
}
"""What says the same in the installed transformers."""

_SHARE = (Annotated[float, Field(ge=0, le=1)], "a number from 0 to 1")
_FROM_0 = (Annotated[float, Field(ge=0)], "a number from 0")
_COUNT = (Annotated[int, Field(ge=1)], "a whole number from 1")
RANGES: Mapping[str, tuple[Any, str]] = {
    "weight_decay": _SHARE,
    "label_smoothing_factor": _SHARE,
    "max_grad_norm": _FROM_0,
    "warmup_steps": _FROM_0,
    "neftune_noise_alpha": (Annotated[float, Field(ge=0)] | None, "a number from 0, or null"),
    "per_device_eval_batch_size": _COUNT,
    "eval_accumulation_steps": (Annotated[int, Field(ge=1)] | None, "a whole number from 1, or null"),
    "dataloader_num_workers": (Annotated[int, Field(ge=0, le=256)], "a whole number from 0 to 256"),
    "train_sampling_strategy": (
        Literal["random", "sequential", "batch_rebalance"],
        '"random", "sequential" or "batch_rebalance" (group_by_length would mix up the held-out rows too)',
    ),
    "ddp_timeout": _COUNT,
    "ddp_bucket_cap_mb": (Annotated[int, Field(ge=1)] | None, "a whole number from 1, or null"),
}
"""Of what transformers would take any number: the type of those that mean something, and its words."""

NO_SCHEDULES = frozenset({"reduce_lr_on_plateau", "greedy"})
"""They ask for evaluations in a rhythm of their own."""

_STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def check_value(what: str, value: Any, kind: Any, words: str) -> Problem | None:
    """Whether a value is of a type: true is no number, and a whole number is one.

    Args:
        what: Its name in a message.
        value: As it came from JSON.
        kind: A type as Python annotates it.
        words: The same in words.
    """
    try:
        TypeAdapter(kind, config=_STRICT).validate_python(value)
    except ValidationError:
        return Problem(what, repr(value), words, "Correct it and run again.")
    return None


def unknown(what: str, name: str, known: list[str]) -> Problem:
    """The problem of a name that there is not.

    Args:
        what: The parameter.
        name: As the user gave it.
        known: The names that there are.
    """
    near = get_close_matches(name, known, n=1)
    mend = f"Did you mean {near[0]}?" if near else "Correct it or take it out."
    return Problem(what, repr(name), ", ".join(known), mend)


def refused(given: Mapping[str, Any]) -> list[Problem]:
    """The arguments that are not for a user to set, with where or why; known without transformers.

    Args:
        given: The user's `training_arguments`.
    """
    problems = []
    for name, value in given.items():
        if name in OWN_PARAMETER:
            allowed, mend = "arguments without a parameter of their own", f"Set the parameter {OWN_PARAMETER[name]}."
        elif reason := _decided(name):
            allowed, mend = f"no {name}: {reason}", "Take it out."
        else:
            continue
        shown = "a value" if "token" in name else repr(value)
        problems.append(Problem(f"{WHAT}.{name}", shown, allowed, mend))
    return problems


def check_arguments(
    given: Mapping[str, Any], transformer_type: str = TEXT_TYPE, learning_rate: float = LEARNING_RATE
) -> list[Problem]:
    """What is wrong with the user's `training_arguments`; everything that can be known without the model and a GPU.

    Args:
        given: By name, as `transformers.TrainingArguments` calls them.
        transformer_type: What is trained.
        learning_rate: Its peak, to which a schedule's end has to fit.
    """
    if not isinstance(given, Mapping):
        return [Problem(WHAT, repr(given), "an object with arguments by name", "Correct it and run again.")]
    if not given:
        return []
    problems = refused(given)
    for name, value in given.items():
        if name not in OWN_PARAMETER and not _decided(name):
            problems += _check(name, value)
    if transformer_type == "AutoModelForQuestionAnswering" and given.get("label_smoothing_factor"):
        problems.append(
            Problem(
                f"{WHAT}.label_smoothing_factor",
                repr(given["label_smoothing_factor"]),
                "0 for AutoModelForQuestionAnswering, whose model computes its loss itself",
                "Take it out.",
            )
        )
    return problems or try_arguments(given, transformer_type, learning_rate)


def _decided(name: str) -> str | None:
    return next((why for why, names in DECIDED.items() if any(fnmatchcase(name, known) for known in names)), None)


def _check(name: str, value: Any) -> list[Problem]:
    hints = _hints()
    if name not in hints:
        if name in INSTEAD:
            return [Problem(WHAT, repr(name), "an argument of the installed transformers", INSTEAD[name])]
        return [unknown(WHAT, name, [known for known in hints if known not in OWN_PARAMETER and not _decided(known)])]
    kind, words = RANGES.get(name) or _kind(hints[name])
    if problem := check_value(f"{WHAT}.{name}", value, kind, words):
        return [problem]
    names = _names(hints[name])
    if names and value not in names:
        return [unknown(f"{WHAT}.{name}", value, names)]
    return []


@cache
def _hints() -> dict[str, Any]:
    from dataclasses import fields

    from transformers import TrainingArguments

    hints = get_type_hints(TrainingArguments)
    return {field.name: hints[field.name] for field in fields(TrainingArguments) if field.init}


def _kind(hint: Any) -> tuple[Any, str]:
    """The type that a value may have, and its words; text in the place of an object would name a file."""
    options = _options(hint)
    objects = any((get_origin(option) or option) is dict for option in options)
    kept = [option for option in options if not _is_enum(option) and not (objects and option is str)]
    return Union[tuple(kept)], " or ".join(_word(option) for option in kept)  # noqa: UP007


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_enum(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, Enum)


def _word(option: Any) -> str:
    words: Mapping[Any, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        NoneType: "null",
        list[str]: "a list of text",
        dict[str, bool]: "an object whose values are true or false",
    }
    return words.get(option) or ("an object" if (get_origin(option) or option) is dict else str(option))


def _names(hint: Any) -> list[str]:
    """The names of which a value has to be one, if there is such a list."""
    return [item.value for option in _options(hint) if _is_enum(option) for item in option if item not in NO_SCHEDULES]
