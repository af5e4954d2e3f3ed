"""Everything that can be wrong with a training before its rows are read, all of it in one message."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kfp_finetune.components.torchtune_train.config import Steps, build_config
from kfp_finetune.components.torchtune_train.families import Architecture
from kfp_finetune.components.torchtune_train.loggers import check_loggers
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.components.torchtune_train.overrides import apply_overrides, check_overrides, nest
from kfp_finetune.components.torchtune_train.quantization import unquantizable
from kfp_finetune.components.torchtune_train.rehearsal import rehearse
from kfp_finetune.components.torchtune_train.settings import (
    DataSettings,
    TrainSettings,
    runs_without_fsdp,
    unfold_advanced,
)
from kfp_finetune.components.torchtune_train.tensor_parallel import check_tensor_parallel
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.manifests import Manifest
from kfp_finetune.settings import read_partly, read_settings
from kfp_finetune.training import request as training
from kfp_finetune.workspace import Workspace, check_series_name

FORMAT = 3
"""Raised by hand when the same settings would train differently than before; part of every training's key."""

LONGEST_BY_DEFAULT = 2048
"""Tokens of a row where the user sets no limit and the model can read more."""


@dataclass(frozen=True)
class ModelRequest(training.Request):
    """A training with torchtune, whatever its rows are.

    Args:
        train: How the model is trained.
        architecture: The model's.
    """

    train: TrainSettings
    architecture: Architecture


@dataclass(frozen=True)
class Request(ModelRequest):
    """A training with torchtune on conversations or texts.

    Args:
        data: How rows become conversations.
    """

    data: DataSettings

    @property
    def shaping(self) -> Mapping[str, Any]:
        """Every setting that shapes the result, and the number of the format in which they are read."""
        return {"format": FORMAT, "data": asdict(self.data), "train": self.train.shaping()}


def check_request(
    dataset: Manifest, model: Manifest, name: str, values: Mapping[str, Any], workspace: Workspace
) -> Request:
    """Checks what a user asks for.

    Args:
        dataset: Of the published dataset.
        model: Of the published model.
        name: The series that the export will belong to.
        values: For `DataSettings`, `TrainSettings` and `advanced`, by name.
        workspace: The tree on the volume.

    Raises:
        UserError: With everything that is wrong.
    """
    values, problems = unfold_advanced(values)
    data_values = {key: value for key, value in values.items() if key in DataSettings.__dataclass_fields__}
    data, found = read_settings(DataSettings, data_values)
    others = {key: values[key] for key in values.keys() - data_values.keys()}
    train, architecture = check_training(model, name, others, workspace, [*problems, *found])
    assert data is not None
    return Request(dataset, model, train, architecture, data)


def check_training(
    model: Manifest, name: str, values: Mapping[str, Any], workspace: Workspace, problems: Sequence[Problem]
) -> tuple[TrainSettings, Architecture]:
    """Checks how a model is to be trained.

    Args:
        model: Of the published model.
        name: The series that the export will belong to.
        values: For `TrainSettings`, by name.
        workspace: The tree on the volume.
        problems: What was found wrong before, with the rows' settings.

    Returns:
        The settings, with the longest sequence that is meant, and the model's architecture.

    Raises:
        UserError: With everything that is wrong.
    """
    train, found = read_partly(TrainSettings, values, needed="method")
    problems = [*problems, *found]
    try:
        check_series_name(name)
    except UserError as error:
        problems += error.problems
    architecture, found = _read_architecture(workspace.root / model.path)
    problems += found
    if train is not None:
        problems += check_alone(train)
    if train is None or architecture is None:
        raise UserError(problems)
    if train.max_seq_len == 0:
        train = replace(train, max_seq_len=min(LONGEST_BY_DEFAULT, architecture.max_seq_len))
    problems += check_together(train, architecture)
    if problems:
        raise UserError(problems)
    return train, architecture


def _read_architecture(model: Path) -> tuple[Architecture | None, list[Problem]]:
    try:
        return read_architecture(json.loads((model / "config.json").read_text())), []
    except UserError as error:
        return None, list(error.problems)


def check_alone(train: TrainSettings) -> list[Problem]:
    """What is wrong with settings of which each is allowed, whatever the model.

    Args:
        train: The settings.
    """
    problems = check_loggers(train.metric_loggers)
    if train.enable_activation_offloading and not train.enable_activation_checkpointing:
        allowed = "true only with enable_activation_checkpointing true"
        problems.append(Problem("enable_activation_offloading", "true", allowed, "Set both, or neither."))
    if train.fsdp_cpu_offload and runs_without_fsdp(train.method, train.world_size):
        allowed = f"false for {train.method} on one process, which runs without FSDP"
        problems.append(Problem("fsdp_cpu_offload", "true", allowed, "Set it to false, or use two processes."))
    if train.fsdp_cpu_offload and train.optimizer != "adamw":
        allowed = "true only with the optimizer adamw"
        problems.append(Problem("fsdp_cpu_offload", "true", allowed, "Set optimizer to adamw."))
    if train.quantization_aware and (train.has_adapter or train.tensor_parallel_dim > 1):
        given = (
            f"{train.quantization_aware}, with method {train.method}, tensor_parallel_dim {train.tensor_parallel_dim}"
        )
        allowed = "empty, but for method full with tensor_parallel_dim 1"
        mend = "Set method to full and tensor_parallel_dim to 1, or take it out."
        problems.append(Problem("quantization_aware", given, allowed, mend))
    if nest(train.overrides).get("optimizer_in_bwd") is True:
        problems += _check_optimizer_in_bwd(train)
    return problems


def check_copy(quantization_aware: str, quantize: str | None) -> list[Problem]:
    """What is wrong with the copy of a model that was trained for one: without it, nobody has what was trained.

    Args:
        quantization_aware: See `TrainSettings`.
        quantize: Of the export's settings; none without a copy.
    """
    if quantization_aware in ("", quantize):
        return []
    given = f"{quantize or 'no copy'}, of a model that is trained for {quantization_aware}"
    mend = f"Set export's quantize to {quantization_aware} too, or take quantization_aware out."
    return [Problem("export.quantize", given, f"{quantization_aware} with quantization_aware", mend)]


def _check_optimizer_in_bwd(train: TrainSettings) -> list[Problem]:
    reasons = {
        "method full": train.has_adapter,
        "gradient_accumulation_steps 1": train.gradient_accumulation_steps > 1,
        "clip_grad_norm 0": train.clip_grad_norm > 0,
        "tensor_parallel_dim 1": train.tensor_parallel_dim > 1,
    }
    wanted = [setting for setting, missing in reasons.items() if missing]
    if not wanted:
        return []
    allowed = f"true only with {', '.join(wanted)}"
    return [Problem("overrides.optimizer_in_bwd", "true", allowed, "Change these, or take the key out.")]


def check_together(train: TrainSettings, architecture: Architecture) -> list[Problem]:
    """What is wrong with settings for a model.

    Args:
        train: The settings.
        architecture: The model's.
    """
    problems = check_tensor_parallel(train, architecture)
    if train.max_seq_len > architecture.max_seq_len:
        allowed = f"at most {architecture.max_seq_len}, the longest sequence of this model"
        mend = f"Set max_seq_len to {architecture.max_seq_len} or less."
        problems.append(Problem("max_seq_len", str(train.max_seq_len), allowed, mend))
    if train.packed and architecture.model_type == "GEMMA2":
        allowed = "false for Gemma 2, whose attention in torchtune takes no mask of packed rows"
        problems.append(Problem("packed", "true", allowed, "Set packed to false."))
    if train.has_adapter and train.apply_lora_to_output and architecture.tied:
        allowed = "false for this model, whose output layer is its embeddings (tie_word_embeddings)"
        problems.append(Problem("apply_lora_to_output", "true", allowed, "Set apply_lora_to_output to false."))
    overrides = nest(train.overrides)
    if architecture.tied and overrides.get("custom_sharded_layers"):
        allowed = "nothing for this model, whose output layer is its embeddings (tie_word_embeddings)"
        given = repr(overrides["custom_sharded_layers"])
        problems.append(Problem("overrides.custom_sharded_layers", given, allowed, "Take the key out."))
    if train.quantizes_base:
        problems += unquantizable(architecture, train.world_size)
    config = build_config(train.settled(1), architecture, Path("model"), [], Path("training"), Steps(1, 1))
    wrong = check_overrides(config, train.overrides)
    return problems + (wrong or rehearse(apply_overrides(config, train.overrides), overrides))
