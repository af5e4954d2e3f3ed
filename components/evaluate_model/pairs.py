"""Which of two answers a model prefers, as its rewards tell beside its base's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from transformers import PreTrainedModel

from kfp_finetune.components.evaluate_model.loss import Share, row_losses
from kfp_finetune.training.gate import OF_PAIRS

REJECTED = {"rejected_tokens": "tokens", "rejected_labels": "labels"}
"""Columns of the worse answer, by what those of the better one are called."""

FIGURE = "reward_accuracy"
"""What matters most."""

Pairs = Sequence[Sequence[float]]
"""Log-probabilities of the better and of the worse answer of each row."""


@dataclass(frozen=True)
class Preferences:
    """How a model's preferences are those of the rows.

    Args:
        loss: Mean loss of a pair, as in training.
        figures: The others, by the names of `gate.OF_PAIRS`.
    """

    loss: float
    figures: Mapping[str, float]


def are_pairs(rows: datasets.Dataset) -> bool:
    """Whether rows have a worse answer beside the better one."""
    return REJECTED.keys() <= set(rows.column_names)


def pair_log_probabilities(
    what: str, model: PreTrainedModel, rows: datasets.Dataset, share: Share | None = None
) -> list[list[float]]:
    """The log-probabilities of both answers of each row, each a sum over the answer's tokens.

    Args:
        what: Name of the work, for its progress.
        model: In evaluation mode.
        rows: With `tokens` and `labels`, and the same of the worse answer.
        share: This process's share. Default: all of it.
    """
    rejected = rows.select_columns(list(REJECTED)).rename_columns(REJECTED)
    chosen_losses = row_losses(f"{what}, chosen", model, rows, share)
    rejected_losses = row_losses(f"{what}, rejected", model, rejected, share)
    return [[-chosen, -other] for chosen, other in zip(chosen_losses, rejected_losses, strict=True)]


def compare_pairs(model: Pairs, base: Pairs, preference: Mapping[str, Any]) -> Preferences:
    """What a model prefers, beside its base.

    The reward of an answer is beta x the difference of its log-probabilities under model and base; a pair of equal
    rewards counts as half right, so that the base itself is right of half of them.

    Args:
        model: Of the model.
        base: Of its base, of the same rows.
        preference: As `Plan.preference` has it.
    """
    beta = preference["beta"]
    rewards = [
        (beta * (chosen - of_base[0]), beta * (rejected - of_base[1]))
        for (chosen, rejected), of_base in zip(model, base, strict=True)
    ]
    margins = [chosen - rejected for chosen, rejected in rewards]
    right = [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]
    figures = (_mean(right), _mean(margins), _mean([chosen for chosen, _ in rewards]))
    return Preferences(
        _mean([_loss(margin, preference) for margin in margins]), dict(zip(OF_PAIRS, figures, strict=True))
    )


def _loss(margin: float, preference: Mapping[str, Any]) -> float:
    """Of one pair: as `torchtune.rlhf.loss` has it."""
    if preference["loss"] == "rso":
        return max(0.0, 1 - margin)
    smoothing = preference["label_smoothing"]
    return (1 - smoothing) * _softplus(-margin) + smoothing * _softplus(margin)


def _softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
