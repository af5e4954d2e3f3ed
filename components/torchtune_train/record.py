"""Plans and trainings as the artifacts that KFP shows and hands on."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_finetune.components.torchtune_train.plan import REPORT_NAME as DATA_REPORT_NAME
from kfp_finetune.components.torchtune_train.plan import Outcome, Plan, describe
from kfp_finetune.components.torchtune_train.train import REPORT_NAME as TRAINING_REPORT_NAME
from kfp_finetune.components.torchtune_train.train import Summary, markdown

if TYPE_CHECKING:
    from kfp import dsl


def record_plan(outcome: Outcome, plan: "dsl.Artifact", report: "dsl.HTML", workspace_root: str) -> bool:
    """Writes a plan and its report as artifacts.

    Args:
        outcome: What planning found.
        plan: Output for the plan.
        report: Output for the report of the data.
        workspace_root: Absolute path of the mounted volume.

    Returns:
        Whether there is anything to do.
    """
    print(describe(outcome), flush=True)
    Path(plan.path).write_text(outcome.plan.to_json())
    plan.metadata.update({"state": outcome.state, "key": outcome.plan.key, "path": outcome.plan.training})
    page = Path(workspace_root) / outcome.plan.training / DATA_REPORT_NAME
    Path(report.path).write_text(page.read_text())
    return outcome.state != "done"


def recall_plan(plan: "dsl.Artifact") -> Plan:
    """Reads the plan that `record_plan` wrote.

    Args:
        plan: A step's input.
    """
    return Plan.from_json(Path(plan.path).read_text())


def record_training(
    plan: Plan,
    summary: Summary,
    metrics: "dsl.Metrics",
    report: "dsl.HTML",
    markdown_summary: "dsl.Markdown",
    workspace_root: str,
) -> None:
    """Writes a finished training as artifacts.

    Args:
        plan: The training.
        summary: How it went.
        metrics: Output for its figures.
        report: Output for its charts.
        markdown_summary: Output for its table.
        workspace_root: Absolute path of the mounted volume.
    """
    for name, value in asdict(summary).items():
        if isinstance(value, int | float):
            metrics.log_metric(name, value)
    page = Path(workspace_root) / plan.training / TRAINING_REPORT_NAME
    Path(report.path).write_text(page.read_text())
    Path(markdown_summary.path).write_text(markdown(plan, summary))
