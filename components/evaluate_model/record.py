"""An evaluation as the artifacts that KFP shows."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_finetune.components.evaluate_model.evaluate import Evaluation
from kfp_finetune.results import EVALUATION, REPORT, print_result
from kfp_finetune.training.plan import Plan
from kfp_finetune.workspace import REPORT_NAME

if TYPE_CHECKING:
    from kfp import dsl


def record_evaluation(
    plan: Plan,
    found: Evaluation,
    evaluation: "dsl.Artifact",
    metrics: "dsl.Metrics",
    report: "dsl.HTML",
    workspace_root: str,
) -> float:
    """Writes an evaluation as artifacts.

    Args:
        plan: The training.
        found: How its model compares with its base.
        evaluation: Output for all of it, as JSON.
        metrics: Output for the figures.
        report: Output for the page.
        workspace_root: Absolute path of the mounted volume.

    Returns:
        By how much the loss fell; 0 if a loss is no number, which KFP could not hand on.
    """
    of_tasks = {
        f"{task}.{name}{suffix}": value
        for task, figures in found.benchmarks.items()
        for name, both in figures.items()
        for suffix, value in (("_before", both["base"]), ("_after", both["tuned"]))
        if value is not None and math.isfinite(value)
    }
    figures = {name: round(figure, 4) for name, figure in {**found.figures, **of_tasks}.items()}
    for name, figure in figures.items():
        metrics.log_metric(name, figure)
    Path(evaluation.path).write_text(found.to_json())
    page = Path(workspace_root) / plan.training / REPORT_NAME
    Path(report.path).write_text(page.read_text())
    print_result("evaluate", figures, {REPORT: report.uri, EVALUATION: evaluation.uri})
    return found.figures.get("improvement", 0.0)
