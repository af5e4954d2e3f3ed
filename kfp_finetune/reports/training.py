"""How a training went: its curves, its figures and, if it failed, why."""

import math
import statistics
from collections.abc import Mapping, Sequence

from kfp_finetune.reports.charts import NOTHING, Series, line_chart
from kfp_finetune.reports.numbers import number
from kfp_finetune.reports.page import Block, Chart, Facts, Note, page

_SMOOTHED = (
    ("rewards/accuracies", "Reward accuracy", "share of pairs"),
    ("rewards/margins", "Reward margin", "chosen - rejected"),
)
_MEASURES = (
    ("lr", "Learning rate", "learning rate"),
    ("tokens_per_second", "Throughput", "tokens per second"),
    ("grad_norm", "Gradient norm", "gradient norm"),
    ("peak_memory_alloc", "Peak GPU memory", "GiB"),
    ("peak_memory_host", "Peak host memory", "GiB"),
)
_OF_PEAKS = "Of the first process."


def training_report(
    *,
    title: str,
    metrics: Sequence[Mapping[str, float]],
    facts: Sequence[tuple[str, str]],
    failure: str = "",
) -> str:
    """Render the report on a training.

    Args:
        title: Heading of the page.
        metrics: One mapping for each record: `step`, `loss`, `lr`, `tokens_per_second` and, if known, `grad_norm`,
            `peak_memory_alloc` and `peak_memory_host` (GiB), `rewards/accuracies` and `rewards/margins` (of pairs of
            answers). Of a step that was recorded again after a resume, the last record counts.
        facts: Further facts, each a name with its value.
        failure: Why the training failed; empty if it did not.

    Returns:
        An HTML page.
    """
    blocks: list[Block] = [Note("The training failed", failure, alarm=True)] if failure else []
    summary, *charts = training_blocks(metrics)
    blocks.append(summary)
    if facts:
        blocks.append(Facts("Settings", facts))
    return page(title, "Training report", [*blocks, *charts])


def training_blocks(metrics: Sequence[Mapping[str, float]], facts: Sequence[tuple[str, str]] = ()) -> list[Block]:
    """The figures of a training in short, then a chart of each: for a page of one's own.

    Args:
        metrics: As `training_report` takes them.
        facts: What else there is to say in short, each a name with its value.
    """
    records = [record for _, record in sorted({record["step"]: record for record in metrics}.items())]
    blocks: list[Block] = [Facts("Training", [*_summary(records), *facts]), _curve(records, "loss", "Loss", "loss")]
    blocks += [_curve(records, *measure) for measure in _SMOOTHED if _column(records, measure[0])[0]]
    for key, heading, unit in _MEASURES:
        steps, values = _column(records, key)
        is_peak = key.startswith("peak_")
        svg = line_chart([Series(heading, steps, values)], "step", unit, from_zero=is_peak)
        if svg != NOTHING:
            blocks.append(Chart(heading, svg, _OF_PEAKS if is_peak else ""))
    return blocks


def smoothed(values: Sequence[float], span: int) -> list[float]:
    """Average the values exponentially over about `span` of them, unbiased at the start; gaps stay gaps."""
    keep = 1 - 2 / (span + 1)
    total = weight = 0.0
    average = []
    for value in values:
        if not math.isfinite(value):
            average.append(math.nan)
            continue
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        average.append(total / weight)
    return average


def _column(records: Sequence[Mapping[str, float]], key: str) -> tuple[list[float], list[float]]:
    there = [record for record in records if record.get(key) is not None]
    return [record["step"] for record in there], [record[key] for record in there]


def _curve(records: Sequence[Mapping[str, float]], key: str, heading: str, unit: str) -> Chart:
    """What varies from step to step, as it was and smoothed."""
    steps, values = _column(records, key)
    if len(values) < 10:
        return Chart(heading, line_chart([Series(heading.lower(), steps, values)], "step", unit))
    span = max(5, len(values) // 40)
    lines = [Series("recorded", steps, values, faint=True), Series("smoothed", steps, smoothed(values, span))]
    caption = f"Smoothed: moving average over about {number(span)} records."
    return Chart(heading, line_chart(lines, "step", unit), caption)


def _summary(records: Sequence[Mapping[str, float]]) -> list[tuple[str, str]]:
    steps, losses = _column(records, "loss")
    rows = [("Last step", number(records[-1]["step"]) if records else "none yet")]
    finite = [(loss, step) for step, loss in zip(steps, losses, strict=True) if math.isfinite(loss)]
    if losses:
        rows.append(("First loss", _loss_at(losses[0], steps[0])))
        rows += [("Best loss", _loss_at(*min(finite)))] if finite else []
        rows.append(("Final loss", _loss_at(losses[-1], steps[-1])))
    if len(finite) < len(losses):
        rows.append(("Records whose loss is not finite", number(len(losses) - len(finite))))
    speeds = [speed for speed in _column(records, "tokens_per_second")[1] if math.isfinite(speed)]
    if speeds:
        rows.append(("Median tokens per second", number(statistics.median(speeds))))
    for key, heading, unit in _MEASURES:
        peaks = [peak for peak in _column(records, key)[1] if math.isfinite(peak)] if key.startswith("peak_") else []
        rows += [(heading, f"{number(max(peaks))} {unit}")] if peaks else []
    return rows


def _loss_at(loss: float, step: float) -> str:
    return f"{number(loss)} at step {number(step)}"
