"""What is peculiar to planning a training on preferences."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.plan_preferences.check import PreferenceRequest, check_request
from kfp_finetune.components.torchtune_train.planning import check_writing, of_training
from kfp_finetune.reports.data import Data, data_report, describe_data
from kfp_finetune.training import planning
from kfp_finetune.training.forecast_page import forecast_block
from kfp_finetune.training.plan import DATA_NAME, DATA_REPORT_NAME, SETTINGS_NAME, Plan
from kfp_finetune.workspace import Workspace

if TYPE_CHECKING:
    from kfp_finetune.components.plan_preferences.prepare import Prepared


def _settings(request: PreferenceRequest) -> Mapping[str, Any]:
    return {**of_training(request), "preference": request.preference.to_dict()}


def _write(workspace: Workspace, request: PreferenceRequest, outline: Plan, staging: Path) -> Plan:
    from kfp_finetune.components.plan_preferences.prepare import prepare

    prepared = prepare(request, workspace, staging)
    plan = replace(
        outline,
        total_steps=prepared.steps.total,
        has_chat_template=prepared.has_chat_template,
        train=asdict(prepared.train),
        held_out=asdict(prepared.held_out),
        expected=prepared.expected.to_dict(),
    )
    data = _describe(plan, request, prepared)
    (staging / DATA_NAME).write_text(data.to_json())
    (staging / DATA_REPORT_NAME).write_text(data_report(data, [forecast_block(prepared.expected)]))
    settings = {**asdict(request.data), **request.preference.to_dict(), **prepared.settings.shaping()}
    del settings["num_procs_per_node"]  # The plan has it, as it is now.
    (staging / SETTINGS_NAME).write_text(json.dumps(settings, indent=2))
    return plan


def _describe(plan: Plan, request: PreferenceRequest, prepared: "Prepared") -> Data:
    train = prepared.train
    return describe_data(
        dataset=plan.dataset,
        model=plan.base,
        lengths=list(prepared.lengths),
        max_seq_len=request.train.max_seq_len,
        facts={
            "Kind of rows": "pairs of answers",
            "Pairs to train on": train.rows,
            "Pairs held out": prepared.held_out.rows,
            "Pairs left out": train.dropped_rows,
            "Pairs with the same answer twice": train.equal_answers,
            "Pairs with an answer that says nothing": train.empty_outputs,
            "Pairs cut off at max_seq_len": train.cut_rows,
            "Tokens to train on, an epoch": train.tokens,
            "Tokens that count in the loss": train.label_tokens,
            "Steps": plan.total_steps,
        },
        samples=[
            {"prompt": sample["prompt"], "chosen": sample["expected"], "rejected": sample["rejected"]}
            for sample in prepared.prompts
        ],
    )


make_plan = partial(planning.make_plan, planning.Planner(check_request, check_writing, _settings, _write))
"""Checks everything and writes the training's directory; see `training.planning.make_plan`.

The settings are the values for `PairSettings`, `PreferenceSettings`, `TrainSettings` and `advanced`, by name.
"""
