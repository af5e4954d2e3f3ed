"""An evaluation as the artifacts that KFP shows."""

from pathlib import Path
from typing import TYPE_CHECKING

from kfp_finetune.components.evaluate_model.evaluate import Evaluation
from kfp_finetune.results import REPORT, print_result
from kfp_finetune.training.plan import Plan
from kfp_finetune.workspace import REPORT_NAME

if TYPE_CHECKING:
    from kfp import dsl


def record_evaluation(
    plan: Plan, evaluation: Evaluation, metrics: "dsl.Metrics", report: "dsl.HTML", workspace_root: str
) -> float:
    """Writes an evaluation as artifacts.

    Args:
        plan: The training.
        evaluation: How its model compares with its base.
        metrics: Output for the losses.
        report: Output for the page.
        workspace_root: Absolute path of the mounted volume.

    Returns:
        By how much the loss fell.
    """
    improvement = evaluation.loss_before - evaluation.loss_after
    figures = {"loss_before": evaluation.loss_before, "loss_after": evaluation.loss_after, "improvement": improvement}
    figures = {name: round(figure, 4) for name, figure in figures.items()}
    for name, figure in figures.items():
        metrics.log_metric(name, figure)
    page = Path(workspace_root) / plan.training / REPORT_NAME
    Path(report.path).write_text(page.read_text())
    print_result("evaluate", figures, {REPORT: report.uri})
    return improvement
