"""What came of a sweep's trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kfp_finetune.components.sweep.measured import evaluation_of, failure_of, has_model
from kfp_finetune.components.sweep.sweep import Sweep, Trial
from kfp_finetune.errors import StepError
from kfp_finetune.training.gate import gate_figures
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.result import RESULT_NAME, read_result
from kfp_finetune.workspace import Workspace

NOT_RUN = "It was not run to its end; run the sweep again to go on with it."


@dataclass(frozen=True)
class Result:
    """What came of a trial.

    Args:
        trial: The trial.
        figures: Of its model, by the names that a gate knows them by; none if it failed.
        before: The held-out loss of the base; None if it failed.
        tokens_per_second: In training, of all processes together.
        seconds: Of the training.
        failure: Why there is no model; empty if there is one.
        has_model: Whether the model is on the volume.
    """

    trial: Trial
    figures: Mapping[str, float] = field(default_factory=dict)
    before: float | None = None
    tokens_per_second: float = 0.0
    seconds: float = 0.0
    failure: str = ""
    has_model: bool = False


@dataclass(frozen=True)
class Comparison:
    """A sweep with what came of it.

    Args:
        sweep: The sweep.
        results: Of its trials, in their order.
        best: The one that was chosen.
    """

    sweep: Sweep
    results: Sequence[Result]
    best: Result

    @property
    def plan(self) -> Plan:
        """Of the best trial, as evaluation and export need it."""
        return replace(self.best.trial.plan, evaluation=self.sweep.evaluation)

    @property
    def ranked(self) -> list[Result]:
        """The results with a model first, the best of them first."""
        return sorted(self.results, key=lambda result: (bool(result.failure), self.rank(result)))

    def figure(self, result: Result) -> float:
        """What a trial is compared by; NaN if there is none."""
        return result.figures.get(self.sweep.aim.metric, math.nan)

    def rank(self, result: Result) -> float:
        """The less the better."""
        return self.sweep.aim.rank(self.figure(result))

    def to_dict(self) -> dict[str, Any]:
        """All of it, for programs."""
        aim, best = self.sweep.aim, self.best
        return {
            "sweep": self.sweep.key,
            "model": best.trial.plan.base,
            "dataset": best.trial.plan.dataset,
            "metric": aim.metric,
            "direction": "min" if aim.less_is_better else "max",
            "best": {"trial": best.trial.number, "training": best.trial.plan.key, "values": best.trial.values},
            "trials": [
                {
                    "trial": result.trial.number,
                    "training": result.trial.plan.key,
                    "values": result.trial.values,
                    "figures": _finite(result.figures),
                    "tokens_per_second": result.tokens_per_second,
                    "seconds": result.seconds,
                    "failure": result.failure,
                }
                for result in self.results
            ],
        }


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures as JSON can hold them."""
    return {name: figure if math.isfinite(figure) else None for name, figure in figures.items()}


def compare(workspace: Workspace, sweep: Sweep) -> Comparison:
    """Reads what came of the trials, and chooses the best of those whose model is there.

    Args:
        workspace: The tree on the volume.
        sweep: The sweep.

    Raises:
        StepError: If no trial succeeded; the message says why each failed.
    """
    results = [_result(workspace, sweep, trial) for trial in sweep.trials]
    there = [result for result in results if result.has_model and not result.failure]
    if not there:
        reasons = [f"{result.trial.title}:\n{result.failure}" for result in results]
        raise StepError("\n".join([f"none of {len(results)} trials succeeded", *reasons]))
    best = min(there, key=lambda result: sweep.aim.rank(result.figures[sweep.aim.metric]))
    return Comparison(sweep, results, best)


def _result(workspace: Workspace, sweep: Sweep, trial: Trial) -> Result:
    evaluation = evaluation_of(workspace, trial)
    figure = sweep.aim.figure(evaluation)
    if figure is None:
        return Result(trial, failure=failure_of(workspace, trial) or NOT_RUN)
    training = workspace.root / trial.plan.training
    measured = read_result(training) if (training / RESULT_NAME).exists() else None
    return Result(
        trial,
        figures=gate_figures(evaluation),
        before=evaluation["loss_before"],
        tokens_per_second=measured.tokens_per_second if measured else 0.0,
        seconds=measured.seconds if measured else 0.0,
        failure="" if math.isfinite(figure) else f"Its {sweep.aim.metric} is no number: the training diverged.",
        has_model=has_model(workspace, trial),
    )
