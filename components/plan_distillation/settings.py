"""What a user can set of a distillation beside what every training with torchtune has; checked without torch."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from kfp_finetune.components.torchtune_train import settings as of_training
from kfp_finetune.components.torchtune_train.overrides import nest
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.errors import Problem
from kfp_finetune.settings import STRICT, read_settings


@dataclass(frozen=True, config=STRICT)
class DistillationSettings:
    """How a model learns from a teacher.

    Args:
        kd_ratio: Weight of what the teacher says, to 1; the rest is that of the rows' own answers.
    """

    kd_ratio: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5


def read_distillation(values: Mapping[str, Any]) -> tuple[DistillationSettings | None, list[Problem]]:
    """The settings of a distillation among all of a training's, and what is wrong with them.

    Args:
        values: By name.
    """
    names = DistillationSettings.__dataclass_fields__
    return read_settings(DistillationSettings, {name: value for name, value in values.items() if name in names})


def check_values(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with those of a user's values that are settings; others are left alone.

    Args:
        values: By name, with `advanced` as the user gave it.
    """
    advanced = values.get("advanced", {})
    shared = advanced.get("tensor_parallel_dim", 1) if isinstance(advanced, Mapping) else 1
    return [
        *of_training.check_values(values),
        *read_distillation(values)[1],
        *check_overrides(values.get("overrides", {})),
        *check_shared(shared),
    ]


def check_overrides(overrides: Any) -> list[Problem]:
    """What is wrong with a user's own keys of torchtune's configuration, beyond what is wrong for every training.

    Args:
        overrides: As the user gave them.
    """
    if not isinstance(overrides, Mapping) or "loss" not in nest(overrides):
        return []
    allowed = "keys that distillation leaves free"
    return [Problem("overrides", "'loss'", allowed, "It comes from the setting kd_ratio.")]


def check_shared(tensor_parallel_dim: Any) -> list[Problem]:
    """What is wrong with matrices that processes share, as torchtune cannot load a teacher that way.

    Args:
        tensor_parallel_dim: See `TrainSettings`.
    """
    if tensor_parallel_dim == TrainSettings.tensor_parallel_dim:
        return []
    return [Problem("tensor_parallel_dim", repr(tensor_parallel_dim), "1 with a teacher", "Take it out.")]
