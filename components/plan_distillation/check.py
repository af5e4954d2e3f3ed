"""Everything that can be wrong with a distillation before its rows are read, all of it in one message."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kfp_finetune.chat import load_tokenizer
from kfp_finetune.components.plan_distillation.settings import (
    DistillationSettings,
    check_overrides,
    check_shared,
    read_distillation,
)
from kfp_finetune.components.torchtune_train import check
from kfp_finetune.components.torchtune_train.check import Request
from kfp_finetune.components.torchtune_train.families import Architecture
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.manifests import Manifest
from kfp_finetune.workspace import Workspace

FORMAT = 1
"""Raised by hand when the same settings would train differently than before; part of every training's key."""


@dataclass(frozen=True)
class DistillationRequest(Request):
    """A training of which a second model is the teacher.

    Args:
        teacher: Of the published teacher.
        teacher_architecture: The teacher's.
        distillation: How the model learns from it.
    """

    teacher: Manifest
    teacher_architecture: Architecture
    distillation: DistillationSettings

    @property
    def shaping(self) -> Mapping[str, Any]:
        """Every setting that shapes the result, and the number of the format in which they are read."""
        own = {"format": FORMAT, "teacher": self.teacher.key, "kd_ratio": self.distillation.kd_ratio}
        return {**super().shaping, "distillation": own}


def check_request(
    dataset: Manifest, model: Manifest, name: str, values: Mapping[str, Any], workspace: Workspace, teacher: Manifest
) -> DistillationRequest:
    """Checks what a user asks for.

    Args:
        dataset: Of the published dataset.
        model: Of the published model.
        name: The series that the export will belong to.
        values: For `DistillationSettings`, and those of a training with torchtune, by name.
        workspace: The tree on the volume.
        teacher: Of the published teacher.

    Raises:
        UserError: With everything that is wrong.
    """
    distillation, problems = read_distillation(values)
    problems += check_overrides(values.get("overrides", {}))
    others = {key: value for key, value in values.items() if key not in DistillationSettings.__dataclass_fields__}
    request = None
    try:
        request = check.check_request(dataset, model, name, others, workspace)
        problems += check_shared(request.train.tensor_parallel_dim)
    except UserError as error:
        problems += error.problems
    architecture, wrong = _read_teacher(workspace.root / teacher.path, request.train if request else None)
    problems += wrong or _other_tokens(workspace.root / model.path, workspace.root / teacher.path, teacher)
    if problems or request is None or architecture is None or distillation is None:
        raise UserError(problems)
    return DistillationRequest(
        dataset, model, request.train, request.architecture, request.data, teacher, architecture, distillation
    )


def _read_teacher(teacher: Path, train: TrainSettings | None) -> tuple[Architecture | None, list[Problem]]:
    try:
        architecture = read_architecture(json.loads((teacher / "config.json").read_text()))
    except UserError as error:
        return None, [replace(problem, what="teacher") for problem in error.problems]
    problems = []
    if train and train.max_seq_len > architecture.max_seq_len:
        allowed = f"at most {architecture.max_seq_len}, the longest sequence of the teacher"
        mend = f"Set max_seq_len to {architecture.max_seq_len} or less."
        problems.append(Problem("max_seq_len", str(train.max_seq_len), allowed, mend))
    if train and train.packed and architecture.model_type == "GEMMA2":
        allowed = "false with a teacher of Gemma 2, whose attention in torchtune takes no mask of packed rows"
        problems.append(Problem("packed", "true", allowed, "Set packed to false."))
    return architecture, problems


def _other_tokens(model: Path, teacher: Path, manifest: Manifest) -> list[Problem]:
    """What is wrong with a teacher that means something else by a token than the model does."""
    try:
        ours, theirs = (load_tokenizer(folder).get_vocab() for folder in (model, teacher))
    except UserError as error:
        return list(error.problems)
    other = [token for token, number in ours.items() if theirs.get(token) != number]
    if not other:
        return []
    examples = ", ".join(repr(token) for token in other[:3])
    count = f"{len(other):,} of the model's {len(ours):,} tokens"
    given = f"{manifest.source}, in which {count} are missing or have other numbers, such as {examples}"
    allowed = "a model with the same tokenizer, as sizes of one family have it"
    return [Problem("teacher", given, allowed, "Choose a larger model of the same family.")]
