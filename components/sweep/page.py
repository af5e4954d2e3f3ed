"""The page on which the trials of a sweep are compared."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from kfp_finetune.components.sweep.results import Comparison, Result
from kfp_finetune.components.sweep.sweep import describe
from kfp_finetune.reports.charts import Point, scatter_chart
from kfp_finetune.reports.evaluation import change
from kfp_finetune.reports.numbers import number
from kfp_finetune.reports.page import Block, Chart, Facts, Figures, Note, Tile, Verdict, page
from kfp_finetune.sources.redaction import redact

_BESIDES = ("loss", "perplexity")
"""Figures that the table has beside the one that trials are compared by."""


def comparison_page(found: Comparison) -> str:
    """Render how the trials of a sweep compare.

    Args:
        found: The trials and the best of them.

    Returns:
        An HTML page.
    """
    plan = found.best.trial.plan
    blocks = [_verdict(found), *_charts(found), _table(found), *_failures(found), _facts(found)]
    return page(f"Sweep of {redact(plan.base)}", redact(plan.dataset), blocks)


def _verdict(found: Comparison) -> Verdict:
    best, aim = found.best, found.sweep.aim
    side = "lowest" if aim.less_is_better else "highest"
    succeeded = sum(not result.failure for result in found.results)
    text = (
        f"Trial {best.trial.number} ({describe(best.trial.values)}) has the {side} {_words(aim.metric)} of "
        f"{succeeded} of {len(found.results)} trials: {_figure(found.figure(best))}."
    )
    if best.before is None:
        return Verdict(f"The best is trial {best.trial.number}", text, [])
    before, after = best.before, best.figures["loss"]
    mood = "good" if after < before else "bad"
    title = f"The best is trial {best.trial.number}" + ("" if after < before else ", no better than the base model")
    tile = Tile("Held-out loss, base and best", _figure(before), _figure(after), change(before, after), mood)
    return Verdict(title, text, [tile], mood)


def _charts(found: Comparison) -> Iterator[Block]:
    """The figure against each setting that varies."""
    metric = found.sweep.aim.metric
    for name in found.sweep.names:
        points = [
            Point(result.trial.values[name], found.figure(result), result is found.best)
            for result in found.results
            if not result.failure
        ]
        chart = scatter_chart(points, name, _words(metric))
        yield Chart(f"{_words(metric).capitalize()} by {name}", chart, "The large point is the best trial.")


def _table(found: Comparison) -> Figures:
    names, metric = found.sweep.names, found.sweep.aim.metric
    beside = [name for name in _BESIDES if name != metric]
    rows = [
        [
            f"{result.trial.number}{_mark(found, result)}",
            *(_value(result.trial.values[name]) for name in names),
            *(_figure(result.figures.get(name, math.nan)) for name in (metric, *beside)),
            number(round(result.tokens_per_second)) if result.tokens_per_second else "",
            number(round(result.seconds, 1)) if result.seconds else "",
        ]
        for result in found.ranked
    ]
    columns = ["Trial", *names, *map(str.capitalize, map(_words, (metric, *beside))), "Tokens per second", "Seconds"]
    caption = "Figures of the held-out rows, which no trial was trained on; the best first."
    return Figures("Trials", columns, rows, caption)


def _mark(found: Comparison, result: Result) -> str:
    if result is found.best:
        return " (best)"
    return " (failed)" if result.failure else ""


def _failures(found: Comparison) -> list[Note]:
    return [
        Note(
            f"Trial {result.trial.number} failed ({describe(result.trial.values)})", redact(result.failure), alarm=True
        )
        for result in found.results
        if result.failure
    ]


def _facts(found: Comparison) -> Facts:
    sweep, plan = found.sweep, found.best.trial.plan
    side = "least" if sweep.aim.less_is_better else "most"
    rows: Sequence[tuple[str, str]] = [
        ("Base model", redact(plan.base)),
        ("Dataset", redact(plan.dataset)),
        ("Trials", str(len(sweep.trials))),
        ("Compared by", f"{side} {sweep.aim.metric}"),
        ("Rows to train on", number(plan.train["rows"])),
        ("Rows held out", number(plan.held_out["rows"])),
        ("Series", sweep.name),
        ("Sweep", sweep.key),
        ("Training of the best", plan.key),
    ]
    return Facts("Sweep", rows, is_wide=True)


def _words(metric: str) -> str:
    return metric if "." in metric else f"held-out {metric.replace('_', ' ')}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return number(value) if isinstance(value, int | float) else str(value)


def _figure(value: float) -> str:
    return "" if math.isnan(value) else number(value) if not 1e-3 <= abs(value) < 1e6 else f"{value:,.4f}"
