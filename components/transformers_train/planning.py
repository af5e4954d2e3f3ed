"""What is peculiar to planning a training with transformers."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.transformers_train.check import Request, check_request
from kfp_finetune.errors import Problem
from kfp_finetune.reports.data import Data, data_report, describe_data
from kfp_finetune.training import planning
from kfp_finetune.training.disk import check_room
from kfp_finetune.training.exporting import ExportSettings
from kfp_finetune.training.plan import DATA_NAME, DATA_REPORT_NAME, SETTINGS_NAME, TRANSFORMERS, Plan
from kfp_finetune.workspace import Workspace

if TYPE_CHECKING:
    from kfp_finetune.components.transformers_train.prepare import Prepared

FP32, STATE = 4, 12
"""Bytes of a number in fp32, and of what training goes on from: the weight and AdamW's two."""


def _check_room(workspace: Workspace, request: Request, export: ExportSettings) -> list[Problem]:
    """Room for rows, checkpoints and export; an adapter is so small beside its model that it is not counted."""
    settings, parameters = request.settings, request.model.facts.get("parameters", 0)
    kept = min(settings.epochs, settings.keep_last_n_checkpoints + 1 if settings.keep_last_n_checkpoints else 1000)
    checkpoints = 0 if settings.lora_config else kept * FP32 + min(settings.epochs - 1, 2) * STATE
    to_write = request.dataset.size + parameters * (checkpoints + FP32) + export.bytes_beside(parameters * FP32)
    what = f"the rows, the checkpoints of {kept} epochs, what training goes on from, and the export"
    return check_room(workspace, request.key, to_write, what)


def _settings(request: Request) -> Mapping[str, Any]:
    settings = request.settings
    return {
        "method": settings.method,
        "epochs": settings.epochs,
        "num_procs_per_node": settings.num_procs_per_worker,
        "num_nodes": settings.num_workers,
        "dtype": settings.dtype,
        "lora_scale": 0.0,
        "export_checkpoint": settings.export_checkpoint,
        "transformer_type": settings.transformer_type,
        "trainer": TRANSFORMERS,
    }


def _write(workspace: Workspace, request: Request, outline: Plan, staging: Path) -> Plan:
    from kfp_finetune.components.transformers_train.prepare import prepare

    prepared = prepare(request, workspace, staging)
    plan = replace(
        outline,
        total_steps=prepared.total_steps,
        train=asdict(prepared.train),
        held_out=asdict(prepared.held_out),
    )
    data = _describe(plan, request, prepared)
    (staging / DATA_NAME).write_text(data.to_json())
    (staging / DATA_REPORT_NAME).write_text(data_report(data))
    settings = request.settings.shaping()
    del settings["num_procs_per_worker"]  # The plan has it, as it is now.
    (staging / SETTINGS_NAME).write_text(json.dumps(settings, indent=2))
    return plan


def _describe(plan: Plan, request: Request, prepared: "Prepared") -> Data:
    shape = prepared.shape
    labels = {"Labels": f"{len(shape.labels.names):,}: {', '.join(shape.labels.names[:20])}"} if shape.labels else {}
    return describe_data(
        dataset=plan.dataset,
        model=plan.base,
        lengths=list(prepared.lengths),
        max_seq_len=request.settings.max_seq_len if prepared.lengths else 0,
        facts={
            "Trained for": request.task.name,
            **{f"Column for {key}": column for key, column in shape.columns.items()},
            **labels,
            "Rows of the dataset to train on": prepared.train.given_rows,
            "Rows that the model reads": prepared.train.rows,
            "Rows held out": prepared.held_out.given_rows,
            "Rows cut off at max_seq_len": prepared.train.cut_rows,
            "Tokens to train on, an epoch": prepared.train.tokens,
            "Steps": plan.total_steps,
        },
        samples=prepared.samples,
    )


make_plan = partial(planning.make_plan, planning.Planner(check_request, _check_room, _settings, _write))
"""Checks everything and writes the training's directory; see `training.planning.make_plan`.

The settings are the values for `Settings` and `advanced`, by name.
"""
