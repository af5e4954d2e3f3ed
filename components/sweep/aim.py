"""What a sweep's trials are compared by."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_finetune.errors import Problem
from kfp_finetune.reports.evaluation import less_is_better
from kfp_finetune.training.gate import OF_EVERY_TRAINING, gate_figures

DIRECTIONS = ("auto", "min", "max")


@dataclass(frozen=True)
class Aim:
    """Which trial is the best.

    Args:
        metric: A figure of the evaluation, by the name that a gate knows it by.
        less_is_better: Whether the best has the least of it.
    """

    metric: str = "loss"
    less_is_better: bool = True

    @property
    def needs_tasks(self) -> bool:
        """Whether the figure is a task's, so that every trial is put to the tasks."""
        return self.metric not in OF_EVERY_TRAINING

    def figure(self, evaluation: Mapping[str, Any]) -> float | None:
        """The figure in an evaluation; None if it was not measured.

        Args:
            evaluation: What lies in a training's evaluation.json.
        """
        return gate_figures(evaluation).get(self.metric) if evaluation else None

    def rank(self, figure: float) -> float:
        """A number that is the less the better, and infinite for what is no number."""
        if not math.isfinite(figure):
            return math.inf
        return figure if self.less_is_better else -figure


def read_aim(metric: str, direction: str, known: Collection[str] = OF_EVERY_TRAINING) -> tuple[Aim, list[Problem]]:
    """What the trials are compared by, and what is wrong with it.

    Args:
        metric: The parameter `metric`.
        direction: The parameter `direction`: "auto" tells by the figure's name.
        known: Figures that there will be.
    """
    problems = []
    if metric not in known:
        named = ", ".join(known)
        mend = "Name one of them, and no setting; a task's figure needs the task in evaluation."
        problems.append(Problem("metric", repr(metric), named, mend))
    if direction not in DIRECTIONS:
        allowed = ", ".join(map(repr, DIRECTIONS))
        problems.append(Problem("direction", repr(direction), allowed, "Correct direction."))
    return Aim(metric, falls(metric) if direction == "auto" else direction == "min"), problems


def falls(metric: str) -> bool:
    """Whether less of a figure is better, as far as its name tells.

    Args:
        metric: A figure of the held-out rows, or a task's: TASK.FIGURE.
    """
    figure = (metric.partition(".")[2] or metric).partition(".")[0]
    return less_is_better(figure.removesuffix("_improvement"))
