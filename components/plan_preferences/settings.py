"""What a user can set of a training on preferences, with its types and ranges; checked as a whole, without torch."""

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from kfp_finetune import settings
from kfp_finetune.components.torchtune_train.overrides import nest
from kfp_finetune.components.torchtune_train.settings import ON_THE_FORM, TrainSettings
from kfp_finetune.errors import Problem
from kfp_finetune.settings import STRICT, read_settings
from kfp_finetune.training.parts import HeldOut, Split

METHODS = ("lora", "full")
"""Those that torchtune 0.6.1 has a recipe for."""

LEARNING_RATES: Mapping[str, float] = {"lora": 1e-5, "full": 1e-6}
"""Defaults, as TRL has them: a tenth and less of what teaches answers, since the loss moves both of a pair."""

COLUMNS = frozenset({"prompt", "chosen", "rejected", "system"})
"""What a column can hold."""

LEFT_OUT: Mapping[str, str] = {
    "packed": "torchtune compares the two answers of a pair in one batch",
    "compile": "torchtune's recipe for adapters does not compile",
    "num_output_chunks": "the logits of pairs are always computed in eight parts",
    "tensor_parallel_dim": "torchtune's recipes for preferences share no matrices",
    "quantization_aware": "torchtune's recipes for preferences round no weights",
}
"""Settings of other trainings that mean nothing here, and why."""

OVERRIDES_LEFT_OUT: Mapping[str, str] = {
    "loss": "the settings loss, beta and label_smoothing",
    "optimizer_in_bwd": "none: torchtune's recipes for preferences need the optimizer's own step",
}
"""Keys of torchtune's configuration that are not free, and where they come from."""


@dataclass(frozen=True, config=STRICT)
class PairSettings:
    """How rows become pairs of answers.

    Args:
        column_map: The columns that hold `prompt`, `chosen`, `rejected` and `system`, where they have other names.
        new_system_prompt: A system message put before every row that has none of its own; empty for none.
        split: The rows to train on: a split's name or a part of one, such as "train[:10%]".
        held_out: The rows to evaluate on, never trained on: a share of the split ("5%") or another split ("test").
    """

    column_map: dict[str, str] = field(default_factory=dict)
    new_system_prompt: str = ""
    split: Split = "train"
    held_out: HeldOut = "5%"

    @field_validator("column_map")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        if not value.keys() <= COLUMNS:
            raise ValueError(f"an object with keys of {', '.join(sorted(COLUMNS))}, each naming a column")
        return value


@dataclass(frozen=True, config=STRICT)
class PreferenceSettings:
    """What a pair of answers teaches.

    Args:
        loss: "dpo" (Rafailov et al., 2023) or "rso", a hinge in place of the logarithm (Liu et al., 2024).
        beta: How strongly the model is held to its base; the rewards are beta x the difference of log-probabilities.
        label_smoothing: Share of the pairs that are taken to be the wrong way round; for dpo.
    """

    loss: Literal["dpo", "rso"] = "dpo"
    beta: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5, allow_inf_nan=False)] = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The settings by name."""
        return asdict(self)


def unfold_advanced(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Takes what is in `advanced` out of it; see `torchtune_train.settings.unfold_advanced`.

    Args:
        values: The user's values by name.
    """
    known = TrainSettings.__dataclass_fields__.keys() - ON_THE_FORM - LEFT_OUT.keys()
    own = ON_THE_FORM | PairSettings.__dataclass_fields__.keys() | PreferenceSettings.__dataclass_fields__.keys()
    return settings.unfold_advanced(values, known, own - LEFT_OUT.keys(), "Take it out.")


def check_values(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with those of a user's values that are settings; others are left alone.

    Args:
        values: By name, with `advanced` as the user gave it.
    """
    values, problems = unfold_advanced(values)
    wrong = check_method(values)
    for kind in (PairSettings, PreferenceSettings, TrainSettings):
        names = kind.__dataclass_fields__.keys() - ({"method"} if wrong else set())
        problems += read_settings(kind, {name: value for name, value in values.items() if name in names})[1]
    return problems + wrong + check_smoothing(values) + check_overrides(values.get("overrides", {}))


def check_method(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the method, which is one of `METHODS`.

    Args:
        values: By name.
    """
    method = values.get("method", METHODS[0])
    if method in METHODS:
        return []
    return [Problem("method", repr(method), " or ".join(map(repr, METHODS)), "Correct method and run again.")]


def check_smoothing(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with a share of wrong pairs, which the hinge has no place for.

    Args:
        values: By name.
    """
    smoothing = values.get("label_smoothing", 0)
    if values.get("loss") != "rso" or not smoothing:
        return []
    return [Problem("label_smoothing", f"{smoothing}, with loss rso", "0 with rso", "Set it to 0, or loss to dpo.")]


def check_overrides(overrides: Any) -> list[Problem]:
    """What is wrong with a user's own keys of torchtune's configuration, beyond what is wrong for every training.

    Args:
        overrides: As the user gave them.
    """
    keys = nest(overrides).keys() if isinstance(overrides, Mapping) else ()
    return [
        Problem("overrides", repr(key), "keys that preference tuning leaves free", f"It comes from {source}.")
        for key, source in OVERRIDES_LEFT_OUT.items()
        if key in keys
    ]
