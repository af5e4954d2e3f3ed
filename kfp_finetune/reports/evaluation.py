"""What fine-tuning changed: losses and answers of the base model and of the tuned one, side by side."""

import math
from collections.abc import Mapping, Sequence

from kfp_finetune.reports.numbers import number
from kfp_finetune.reports.page import Block, Facts, Samples, page
from kfp_finetune.reports.training import training_blocks

_ANSWERS = {"prompt": "Prompt", "expected": "Expected", "base": "Base model", "tuned": "Tuned model"}


def evaluation_report(
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    losses: Sequence[tuple[str, float, float]],
    samples: Sequence[Mapping[str, str]],
    metrics: Sequence[Mapping[str, float]] = (),
) -> str:
    """Render the report on a fine-tuning: what it changed and, if its figures are given, how it went.

    Args:
        title: Heading of the page.
        facts: What was evaluated and how, each a name with its value.
        losses: Each a name with the loss of the base model and that of the tuned one.
        samples: Each with `prompt`, `expected`, `base` and `tuned`; one that is missing is left blank.
        metrics: The training's figures, as `training_report` takes them; empty to leave them out.

    Returns:
        An HTML page.
    """
    compared = [[name, _loss(base), _loss(tuned), change(base, tuned)] for name, base, tuned in losses]
    answers = [[sample.get(key, "") for key in _ANSWERS] for sample in samples]
    blocks: list[Block] = [
        Samples("Loss (lower is better)", ["Data", "Base model", "Tuned model", "Change"], compared),
        *([Facts("Evaluated", facts)] if facts else []),
        Samples("Answers", list(_ANSWERS.values()), answers),
        *(training_blocks(metrics) if metrics else []),
    ]
    return page(title, "Fine-tuning report", blocks)


def change(base: float, tuned: float) -> str:
    """Say by how much the tuned loss differs from that of the base model, and whether that is better."""
    difference = tuned - base
    if not math.isfinite(difference):
        return "not comparable"
    if difference == 0:
        return "none"
    sign = "+" if difference > 0 else ""
    verdict = "worse" if difference > 0 else "better"
    relative = f" ({sign}{100 * difference / base:.1f}%)".replace("-", "−") if base > 0 else ""
    return f"{sign}{_loss(difference)}{relative}, {verdict}"


def _loss(value: float) -> str:
    return f"{value:,.3f}".replace("-", "−") if 1e-3 <= abs(value) < 1e6 else number(value)
