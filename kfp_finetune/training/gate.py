"""Bounds that a model's figures on the held-out rows must keep before it is exported."""

import math
from collections.abc import Mapping
from typing import Any

from kfp_finetune.errors import Problem
from kfp_finetune.training.evaluation import perplexity

SIDES = {"min_": "at least", "max_": "at most"}
OF_EVERY_TRAINING = ("loss", "perplexity", "improvement")
"""Figures that there are whatever was trained: loss and its exponential after training, and by how much it fell."""

OF_PAIRS = ("reward_accuracy", "reward_margin", "chosen_reward")
"""Figures of pairs of answers: share in which the better one has the higher reward, by how much on average, and the
mean reward of the better ones."""
OF_EVERY_PAIR = ("loss", "improvement", *OF_PAIRS)
"""Figures that there are where pairs of answers were trained on."""


def gate_figures(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The figures that a gate can bound.

    Args:
        evaluation: What lies in a training's evaluation.json.
    """
    before, after = evaluation["loss_before"], evaluation["loss_after"]
    figures = {"loss": after, "improvement": before - after}
    if not evaluation.get("preference"):  # The exponential of a pair's loss means nothing.
        figures["perplexity"] = perplexity(after)
    of_tasks = {
        name: value
        for task, found in evaluation.get("benchmarks", {}).items()
        for figure, both in found.items()
        if None not in (both["tuned"], both["base"])
        for name, value in (
            (f"{task}.{figure}", both["tuned"]),
            (f"{task}.{figure}_improvement", both["tuned"] - both["base"]),
        )
    }
    return {**figures, **evaluation.get("figures_after", {}), **of_tasks}


def named_of_tasks(gate: Any) -> tuple[str, ...]:
    """The figures in a gate that are a task's, TASK.FIGURE, where it cannot be told which figures a task has.

    Args:
        gate: What the user gave.
    """
    return tuple(str(name)[4:] for name in gate if "." in str(name)) if isinstance(gate, Mapping) else ()


def check_gate(gate: Any, known: tuple[str, ...] = OF_EVERY_TRAINING) -> list[Problem]:
    """What is wrong with the parameter `gate`, before anything is trained.

    Args:
        gate: What the user gave: {"min_improvement": 0.05, "max_loss": 2.0}.
        known: Figures that there will be.
    """
    allowed = f"an object of numbers with keys of {', '.join(f'min_{name} or max_{name}' for name in known)}"
    if not isinstance(gate, Mapping):
        return [Problem("gate", repr(gate), allowed, "Correct it, or leave it empty for no bound.")]
    problems = []
    for name, bound in gate.items():
        if str(name)[:4] not in SIDES or str(name)[4:] not in known:
            problems.append(Problem("gate", repr(name), allowed, "Correct the name or take it out."))
        elif isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            problems.append(Problem(f"gate.{name}", repr(bound), "a number", "Correct it."))
    return problems


def failed_bounds(gate: Mapping[str, float], evaluation: Mapping[str, Any]) -> list[Problem]:
    """The bounds that a trained model does not keep, each with by how much.

    Args:
        gate: From the user, without a problem.
        evaluation: What lies in the training's evaluation.json.
    """
    figures = gate_figures(evaluation)
    problems = []
    for name, bound in gate.items():
        side, figure = name[:4], figures.get(name[4:], math.nan)
        missing = bound - figure if side == "min_" else figure - bound
        if not missing <= 0:
            where = "in its benchmark" if "." in name else "on the held-out rows"
            given = (
                f"{name[4:]} {figure:.4g} {where}, {missing:.4g} {'less' if side == 'min_' else 'more'} than allowed"
            )
            if math.isnan(figure):
                given = f"{name[4:]}, which is no number {where}, or was not measured"
            mend = "Nothing was exported; the training and its report stay. Train longer or on other rows, or set gate."
            problems.append(Problem(f"gate.{name}", given, f"{SIDES[side]} {bound:g}", mend))
    return problems
