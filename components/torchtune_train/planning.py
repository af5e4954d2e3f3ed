"""What is peculiar to planning a training with torchtune."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.torchtune_train.check import ModelRequest, Request, check_copy, check_request
from kfp_finetune.components.torchtune_train.disk import check_disk
from kfp_finetune.errors import Problem
from kfp_finetune.reports.data import Data, data_report, describe_data
from kfp_finetune.training import planning
from kfp_finetune.training.exporting import ExportSettings
from kfp_finetune.training.forecast_page import forecast_block
from kfp_finetune.training.plan import DATA_NAME, DATA_REPORT_NAME, SETTINGS_NAME, Plan
from kfp_finetune.workspace import Workspace

if TYPE_CHECKING:
    from kfp_finetune.components.torchtune_train.prepare import Prepared, Rows


def check_writing(workspace: Workspace, request: ModelRequest, export: ExportSettings) -> list[Problem]:
    """What is wrong with what will be written: a copy that is missing, or the volume's free space.

    Args:
        workspace: The tree on the volume.
        request: The training.
        export: How its export is to be made.
    """
    parameters = request.model.facts.get("parameters", 0)
    return [
        *check_copy(request.train.quantization_aware, export.quantize),
        *check_disk(workspace, request.key, request.train, request.architecture, parameters, export),
    ]


def of_training(request: ModelRequest) -> Mapping[str, Any]:
    """What a plan says of a request's settings, by the names of `Plan`'s fields.

    Args:
        request: The training.
    """
    train = request.train
    return {
        "method": train.method,
        "epochs": train.epochs,
        "num_procs_per_node": train.num_procs_per_node,
        "num_nodes": train.num_nodes,
        "dtype": train.dtype,
        "lora_scale": train.alpha / train.lora_rank if train.has_adapter else 0.0,
        "export_checkpoint": train.export_checkpoint,
        "checkpoint_minutes": train.checkpoint_minutes,
        "quantization_aware": train.quantization_aware,
    }


def _write(workspace: Workspace, request: Request, outline: Plan, staging: Path) -> Plan:
    from kfp_finetune.components.torchtune_train.prepare import prepare

    return write_plan(request, outline, staging, prepare(request, workspace, staging))


def write_plan(request: Request, outline: Plan, staging: Path, prepared: "Prepared") -> Plan:
    """Writes what is told of a training's rows, and gives its whole plan.

    Args:
        request: The training.
        outline: Of the plan.
        staging: The directory that becomes the training's.
        prepared: What became of the rows.
    """
    plan = replace(
        outline,
        total_steps=prepared.steps.total,
        has_chat_template=prepared.rows.has_chat_template,
        train=asdict(prepared.rows.train),
        held_out=asdict(prepared.rows.held_out),
        expected=prepared.expected.to_dict(),
    )
    data = _describe(plan, request, prepared.rows)
    (staging / DATA_NAME).write_text(data.to_json())
    (staging / DATA_REPORT_NAME).write_text(data_report(data, [forecast_block(prepared.expected)]))
    settings = {**asdict(request.data), **prepared.settings.shaping()}
    del settings["num_procs_per_node"]  # The plan has it, as it is now.
    (staging / SETTINGS_NAME).write_text(json.dumps(settings, indent=2))
    return plan


def _describe(plan: Plan, request: Request, rows: "Rows") -> Data:
    return describe_data(
        dataset=plan.dataset,
        model=plan.base,
        lengths=list(rows.lengths),
        max_seq_len=request.train.max_seq_len,
        facts={
            "Kind of rows": rows.kind,
            "Rows to train on": plan.train["rows"],
            "Rows held out": plan.held_out["rows"],
            "Rows left out (no answer within max_seq_len)": plan.train["dropped_rows"],
            "Rows that end with an earlier answer of a conversation": plan.train["further_rows"],
            "Rows cut off at max_seq_len": plan.train["cut_rows"],
            "Rows with an empty answer": plan.train["empty_outputs"],
            "Tokens to train on, an epoch": plan.train["tokens"],
            "Tokens that count in the loss": plan.train["label_tokens"],
            "Steps": plan.total_steps,
        },
        samples=[{"prompt": sample["prompt"], "answer": sample["expected"]} for sample in rows.prompts],
    )


PLANNER = planning.Planner(check_request, check_writing, of_training, _write)
"""What is peculiar to planning with torchtune."""


def sharing_planner() -> planning.Planner[Request]:
    """The same for trainings whose rows are all read the same way: the first one's tokens are those of the others."""
    known: list[Rows] = []

    def write(workspace: Workspace, request: Request, outline: Plan, staging: Path) -> Plan:
        from kfp_finetune.components.torchtune_train.prepare import TOKENS_FOLDER, prepare

        prepared = prepare(request, workspace, staging, known[0] if known else None)
        if not known:
            known.append(replace(prepared.rows, tokens=workspace.training(request.key) / TOKENS_FOLDER))
        return write_plan(request, outline, staging, prepared)

    return replace(PLANNER, write=write)


make_plan = partial(planning.make_plan, PLANNER)
"""Checks everything and writes the training's directory; see `training.planning.make_plan`.

The settings are the values for `DataSettings`, `TrainSettings` and `advanced`, by name.
"""
