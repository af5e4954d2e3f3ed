"""What is peculiar to planning a training with a teacher."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kfp_finetune.components.plan_distillation.check import DistillationRequest, check_request
from kfp_finetune.components.torchtune_train.config import with_teacher
from kfp_finetune.components.torchtune_train.memory import parameters, teacher_bytes
from kfp_finetune.components.torchtune_train.planning import check_writing, of_training, write_plan
from kfp_finetune.manifests import Manifest
from kfp_finetune.training import planning
from kfp_finetune.training.forecast import Forecast, Way
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.planning import Outcome
from kfp_finetune.workspace import Workspace

GIB = 1 << 30


def make_plan(dataset: Manifest, model: Manifest, teacher: Manifest, *arguments: Any, **more: Any) -> Outcome:
    """Checks everything and writes the training's directory; see `training.planning.make_plan`.

    The settings are the values for `DistillationSettings`, `DataSettings`, `TrainSettings` and `advanced`, by name.

    Args:
        dataset: Of the published dataset.
        model: Of the published model that learns.
        teacher: Of the published model that it learns from.
        arguments: Of `training.planning.make_plan`, from the series' name on.
        more: The same.

    Raises:
        UserError: With everything that is wrong.
    """
    planner = planning.Planner(partial(check_request, teacher=teacher), check_writing, _settings, _write)
    return planning.make_plan(planner, dataset, model, *arguments, **more)


def _settings(request: DistillationRequest) -> Mapping[str, Any]:
    ratio = request.distillation.kd_ratio
    return {**of_training(request), "distillation": {"teacher": request.teacher.source, "kd_ratio": ratio}}


def _write(workspace: Workspace, request: DistillationRequest, outline: Plan, staging: Path) -> Plan:
    from kfp_finetune.components.torchtune_train.prepare import prepare, weight_files

    change = partial(
        with_teacher,
        settings=request.train,
        architecture=request.teacher_architecture,
        model=workspace.root / request.teacher.path,
        weights=weight_files(request.teacher),
        ratio=request.distillation.kd_ratio,
    )
    prepared = prepare(request, workspace, staging, change=change)
    expected = expect_teacher(prepared.expected, request)
    return write_plan(request, outline, staging, replace(prepared, expected=expected))


def expect_teacher(expected: Forecast, request: DistillationRequest) -> Forecast:
    """What a training with a teacher is expected to need, from what it would need without.

    A pass forward takes two operations for each number of the matrices (Kaplan et al., 2020, section 2.1).

    Args:
        expected: Without.
        request: The training.
    """
    teacher = request.teacher_architecture

    def add(way: Way) -> Way:
        beside = teacher_bytes(request.train, teacher, way.batch_size * expected.tokens_a_row)
        flops = 2 * way.tokens_an_epoch * parameters(teacher)
        memory = round(way.memory_gib + beside / GIB, 2)
        return replace(way, memory_gib=memory, flops_an_epoch=way.flops_an_epoch + flops)

    return replace(expected, ways=[add(way) for way in expected.ways])
