"""What fine-tuning changed: figures and answers of the base model and of the tuned one, side by side."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kfp_finetune.reports.charts import Series, line_chart
from kfp_finetune.reports.numbers import number
from kfp_finetune.reports.page import Chart, Figures, Samples, Tile, Verdict

_ANSWERS = {"prompt": "Prompt", "expected": "Expected", "base": "Base model", "tuned": "Tuned model"}
_LESS_IS_BETTER = re.compile(r"(^|_)(loss|perplexity|bits_per_byte|brier_score|[cw]er|ter|mse|mae|rmse)$")
_TILES, _ROWS = 4, 300


@dataclass(frozen=True)
class Compared:
    """A figure of both models.

    Args:
        name: What was measured.
        base: Of the base model.
        tuned: Of the tuned model.
        error: Standard error of the latter; None if it is not known.
        task: What it was measured on; empty for the held-out rows.
    """

    name: str
    base: float
    tuned: float
    error: float | None = None
    task: str = ""

    @property
    def title(self) -> str:
        """Its name in words, with the task."""
        words = re.sub("[_,]", " ", self.name).strip()
        return f"{self.task}, {words}" if self.task else words[:1].upper() + words[1:]

    @property
    def less_is_better(self) -> bool:
        """Whether the better model has less of it."""
        return less_is_better(self.name)

    @property
    def change(self) -> str:
        """By how much the tuned model differs from the base, and whether that is better."""
        if self.is_unclear:
            return f"{_signed(self.tuned - self.base)}, within two standard errors"
        return change(self.base, self.tuned, self.less_is_better)

    @property
    def is_unclear(self) -> bool:
        """Whether the difference is so small beside its standard error that it says nothing."""
        return self.error is not None and abs(self.tuned - self.base) <= 2 * self.error

    @property
    def mood(self) -> str:
        """Whether the tuned model is better ("good"), worse ("bad") or neither ("")."""
        difference = self.base - self.tuned if self.less_is_better else self.tuned - self.base
        if self.is_unclear or math.isnan(difference) or difference == 0:
            return ""
        return "good" if difference > 0 else "bad"


def less_is_better(figure: str) -> bool:
    """Whether the better model has less of a figure, as far as its name tells.

    Args:
        figure: Its name; of a task's, that behind the task's.
    """
    return bool(_LESS_IS_BETTER.search(figure.partition(",")[0]))


def verdict(figures: Sequence[Compared], rows: str) -> Verdict:
    """The first figure as a sentence, and the first few as they were and are.

    Args:
        figures: At least one, what matters most first.
        rows: What it was measured on, in words.
    """
    first = figures[0]
    titles = {
        "good": "The tuned model is better than its base",
        "bad": "The tuned model is worse than its base",
        "": "The tuned model is no better than its base",
    }
    side = "lower" if first.less_is_better else "higher"
    text = f"{first.title} on {rows} went from {_figure(first.base)} to {_figure(first.tuned)} ({side} is better)."
    tiles = [
        Tile(each.title, _figure(each.base), _figure(each.tuned), each.change, each.mood) for each in figures[:_TILES]
    ]
    return Verdict(titles[first.mood], text, tiles, first.mood)


def figures_table(title: str, figures: Sequence[Compared], caption: str = "") -> Figures:
    """Figures of the held-out rows, of both models beside each other.

    Args:
        title: Heading of the block.
        figures: To be shown.
        caption: What else there is to say.
    """
    return Figures(
        title,
        ["Figure", "Base model", "Tuned model", "Change"],
        [
            [f"{each.title} ({_side(each)} is better)", _figure(each.base), _figure(each.tuned), each.change]
            for each in figures
        ],
        caption,
    )


def benchmarks_table(figures: Sequence[Compared]) -> Figures:
    """Figures of tasks, of both models beside each other.

    Args:
        figures: To be shown; of very many the first 300.
    """
    rows = [
        [f"{each.task}: {each.name} ({_side(each)} is better)", _figure(each.base), _figure(each.tuned),
         "" if each.error is None else f"± {_figure(each.error)}", each.change]
        for each in figures[:_ROWS]
    ]  # fmt: skip
    more = f" {number(len(figures) - _ROWS)} more are in evaluation.json." if len(figures) > _ROWS else ""
    caption = f"A difference of up to two standard errors (of the tuned model's figure) tells nothing.{more}"
    columns = ["Task and figure", "Base model", "Tuned model", "Error", "Change"]
    return Figures("Benchmarks", columns, rows, caption)


def answers(samples: Sequence[Mapping[str, str]]) -> Samples:
    """What both models answer, side by side.

    Args:
        samples: Each with `prompt`, `expected`, `base` and `tuned`; one that is missing is left blank.
    """
    rows = [[sample.get(key, "") for key in _ANSWERS] for sample in samples]
    return Samples("Answers", list(_ANSWERS.values()), rows)


def epochs_chart(name: str, base: float, epochs: Mapping[int, float]) -> Chart:
    """A figure of the held-out rows after each epoch, from that of the base on.

    Args:
        name: The figure.
        base: Of the base model.
        epochs: By the epoch's number, from 1.
    """
    shown = Compared(name, base, base)
    line = Series(shown.title, [0.0, *map(float, epochs)], [base, *epochs.values()])
    caption = "The first point is the base model."
    return Chart(f"{shown.title} of the held-out rows", line_chart([line], "epochs", shown.title.lower()), caption)


def change(base: float, tuned: float, less_is_better: bool = True) -> str:
    """Say by how much the tuned figure differs from that of the base model, and whether that is better.

    Args:
        base: The base model's.
        tuned: The tuned model's.
        less_is_better: Whether the better one has less of it.
    """
    difference = tuned - base
    if not math.isfinite(difference):
        return "not comparable"
    if difference == 0:
        return "none"
    is_better = (difference < 0) == less_is_better
    relative = f" ({_signed_share(difference / base)})" if base > 0 else ""
    return f"{_signed(difference)}{relative}, {'better' if is_better else 'worse'}"


def _signed(difference: float) -> str:
    return f"{'+' if difference > 0 else ''}{_figure(difference)}"


def _signed_share(share: float) -> str:
    return f"{'+' if share > 0 else ''}{100 * share:.1f}%".replace("-", "−")


def _side(figure: Compared) -> str:
    return "lower" if figure.less_is_better else "higher"


def _figure(value: float) -> str:
    return f"{value:,.3f}".replace("-", "−") if 1e-3 <= abs(value) < 1e6 else number(value)
