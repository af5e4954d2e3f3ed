"""A sweep as the artifacts that KFP shows and hands on."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_finetune.components.sweep.planning import trials_to_run
from kfp_finetune.components.sweep.results import Comparison
from kfp_finetune.components.sweep.running import Outcome
from kfp_finetune.components.sweep.sweep import Sweep, Trial, describe
from kfp_finetune.errors import refuse
from kfp_finetune.reports.page import Note, page
from kfp_finetune.results import COMPARISON, COMPARISON_REPORT, DATA_REPORT, print_result
from kfp_finetune.training.plan import DATA_REPORT_NAME
from kfp_finetune.workspace import REPORT_NAME, open_workspace

if TYPE_CHECKING:
    from kfp import dsl


def record_sweep(sweep: Sweep, artifact: "dsl.Artifact", report: "dsl.HTML", workspace_root: str) -> list[str]:
    """Writes a planned sweep as artifacts.

    Args:
        sweep: The sweep.
        artifact: Output for all of it.
        report: Output for the page on the rows, which all trials share.
        workspace_root: Absolute path of the mounted volume.

    Returns:
        The trials that are to be run, each as JSON.
    """
    Path(artifact.path).write_text(sweep.to_json())
    artifact.metadata.update({"key": sweep.key, "trials": len(sweep.trials), "metric": sweep.aim.metric})
    first = Path(workspace_root) / sweep.trials[0].plan.training
    Path(report.path).write_text((first / DATA_REPORT_NAME).read_text())
    for trial in sweep.trials:
        print(f"{trial.title}: training {trial.plan.key}", flush=True)
    print_result("plan", {"sweep": sweep.key, "trials": len(sweep.trials)}, {DATA_REPORT: report.uri})
    return [trial.to_json() for trial in trials_to_run(sweep, workspace_root)]


def recall_sweep(artifact: "dsl.Artifact | None") -> Sweep:
    """Reads the sweep that `record_sweep` wrote.

    Args:
        artifact: A step's input.

    Raises:
        UserError: If there is none, since planning failed.
    """
    if artifact is None:
        raise refuse("sweep", "none", "what plan_sweep wrote", "See why plan_sweep failed.")
    return Sweep.from_json(Path(artifact.path).read_text())


def record_trial(
    trial: Trial, outcome: Outcome, metrics: "dsl.Metrics", report: "dsl.HTML", workspace_root: str
) -> bool:
    """Writes what became of a trial as artifacts.

    Args:
        trial: The trial.
        outcome: What became of it.
        metrics: Output for its figures.
        report: Output for the page on its training.
        workspace_root: Absolute path of the mounted volume.

    Returns:
        Whether it succeeded.
    """
    figures = (
        {name: round(figure, 4) for name, figure in outcome.evaluation.figures.items()} if outcome.evaluation else {}
    )
    varied = {name: value for name, value in trial.values.items() if isinstance(value, int | float)}
    for name, figure in {**figures, **varied, "failed": int(bool(outcome.failure))}.items():
        metrics.log_metric(name, figure)
    written = open_workspace(workspace_root).root / trial.plan.training / REPORT_NAME
    failed = page(trial.title, trial.plan.base, [Note("Failed", outcome.failure, alarm=True)])
    Path(report.path).write_text(failed if outcome.failure else written.read_text())
    return not outcome.failure


def record_choice(
    found: Comparison,
    plan: "dsl.Artifact",
    comparison: "dsl.Artifact",
    metrics: "dsl.Metrics",
    report: "dsl.HTML",
    workspace_root: str,
) -> None:
    """Writes the choice as artifacts.

    Args:
        found: The trials and the best of them.
        plan: Output for the plan of the best.
        comparison: Output for all of it, as JSON.
        metrics: Output for its figures.
        report: Output for the page.
        workspace_root: Absolute path of the mounted volume.
    """
    best = found.plan
    Path(plan.path).write_text(best.to_json())
    plan.metadata.update({"state": "trained", "key": best.key, "path": best.training})
    Path(comparison.path).write_text(json.dumps(found.to_dict(), indent=2))
    folder = open_workspace(workspace_root).sweep(found.sweep.key)
    Path(report.path).write_text((folder / REPORT_NAME).read_text())
    failed = sum(bool(result.failure) for result in found.results)
    figures: dict[str, float] = {"trials": len(found.results), "failed_trials": failed}
    best_figure = found.figure(found.best)
    figures |= {f"best_{found.sweep.aim.metric}": round(best_figure, 4)} if math.isfinite(best_figure) else {}
    values = found.best.trial.values
    figures |= {f"best_{name}": value for name, value in values.items() if isinstance(value, int | float)}
    for name, figure in figures.items():
        metrics.log_metric(name, figure)
    files = {COMPARISON: comparison.uri, COMPARISON_REPORT: report.uri}
    print_result("choose", {**figures, "best": describe(values), "training": best.key}, files)
