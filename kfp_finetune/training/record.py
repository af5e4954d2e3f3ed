"""Plans and trainings as the artifacts that KFP shows and hands on."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_finetune.reports.page import Note, page
from kfp_finetune.reports.training import training_report
from kfp_finetune.results import DATA_REPORT, TRAINING_REPORT, print_result
from kfp_finetune.training.evaluation import read_evaluation
from kfp_finetune.training.plan import DATA_REPORT_NAME, Plan
from kfp_finetune.training.planning import Outcome, describe
from kfp_finetune.training.summary import REPORT_NAME as TRAINING_REPORT_NAME
from kfp_finetune.training.summary import Summary, facts, markdown, parse_summary
from kfp_finetune.workspace import open_workspace

if TYPE_CHECKING:
    from kfp import dsl

    from kfp_finetune.training.cluster import Outcome as ClusterOutcome


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
    if outcome.summary is not None:
        plan.metadata["summary"] = outcome.summary.to_line()
    Path(report.path).write_text(_data_page(outcome.plan, workspace_root))
    figures = {"training": outcome.plan.key, "planned": outcome.state, **_exported(outcome, workspace_root)}
    print_result("plan", figures, {DATA_REPORT: report.uri})
    return outcome.state != "done"


def _exported(outcome: Outcome, workspace_root: str) -> dict[str, float | str]:
    """Of a training that is done already: where its export is, and the losses that it came to."""
    if outcome.state != "done":
        return {}
    workspace = open_workspace(workspace_root)
    export = workspace.relative(workspace.export(outcome.plan.key))
    return {"export": export, **evaluated_figures(workspace.training(outcome.plan.key))}


def evaluated_figures(training: Path) -> dict[str, float]:
    """The losses on the held-out rows before and after a training; none if it was not evaluated.

    Args:
        training: The training's folder.
    """
    evaluation = read_evaluation(training)
    return {name: round(evaluation[name], 4) for name in ("loss_before", "loss_after") if evaluation}


def _data_page(plan: Plan, workspace_root: str) -> str:
    try:
        return (Path(workspace_root) / plan.training / DATA_REPORT_NAME).read_text()
    except FileNotFoundError:
        note = f"{plan.training} is no longer on the volume; what was exported from it is."
        return page("Training data", plan.dataset, [Note("Not there", note)])


def recall_plan(plan: "dsl.Artifact") -> Plan:
    """Reads the plan that `record_plan` wrote.

    Args:
        plan: A step's input.
    """
    return Plan.from_json(Path(plan.path).read_text())


def recall_summary(plan: "dsl.Artifact") -> Summary | None:
    """The figures of a training that was finished when it was planned; None if it was not.

    Args:
        plan: A step's input.
    """
    return parse_summary(plan.metadata.get("summary", ""))


def record_training(
    plan: Plan,
    summary: Summary,
    metrics: "dsl.Metrics",
    report: "dsl.HTML",
    markdown_summary: "dsl.Markdown",
    workspace_root: str,
) -> str:
    """Writes a training that ran here as artifacts.

    Args:
        plan: The training.
        summary: How it went.
        metrics: Output for its figures.
        report: Output for its charts.
        markdown_summary: Output for its table.
        workspace_root: Absolute path of the mounted volume.

    Returns:
        The training's key.
    """
    Path(report.path).write_text((Path(workspace_root) / plan.training / TRAINING_REPORT_NAME).read_text())
    _record_summary(plan, summary, metrics, markdown_summary, {TRAINING_REPORT: report.uri})
    return plan.key


def record_outcome(
    plan: Plan, outcome: "ClusterOutcome", metrics: "dsl.Metrics", report: "dsl.HTML", markdown_summary: "dsl.Markdown"
) -> str:
    """Writes a training that ran on a cluster as artifacts, of which only its log is known here.

    Args:
        plan: The training.
        outcome: What its log told.
        metrics: Output for its figures.
        report: Output for its charts.
        markdown_summary: Output for its table.

    Returns:
        The training's key.
    """
    title = f"{plan.method} fine-tuning of {plan.base}"
    files = {TRAINING_REPORT: report.uri} if outcome.metrics else {}
    if outcome.metrics:
        Path(report.path).write_text(training_report(title=title, metrics=outcome.metrics, facts=facts(plan)))
    if outcome.summary is not None:
        _record_summary(plan, outcome.summary, metrics, markdown_summary, files)
    return plan.key


def _record_summary(
    plan: Plan, summary: Summary, metrics: "dsl.Metrics", markdown_summary: "dsl.Markdown", files: Mapping[str, str]
) -> None:
    figures = {name: value for name, value in asdict(summary).items() if isinstance(value, int | float)}
    figures |= summary.figures
    for name, figure in figures.items():
        metrics.log_metric(name, figure)
    Path(markdown_summary.path).write_text(markdown(plan, summary))
    print_result("train", figures, files)
