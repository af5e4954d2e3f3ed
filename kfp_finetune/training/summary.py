"""A finished training in a few figures, and as KFP shows it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kfp_finetune.metrics import read_metrics
from kfp_finetune.training.evaluation import read_evaluation
from kfp_finetune.training.plan import TRANSFORMERS, Plan
from kfp_finetune.training.result import read_result

REPORT_NAME = "training.html"

PREFIX = "summary "
"""Begins the line by which a training on a cluster tells its figures to the step that waits for it."""


@dataclass(frozen=True)
class Summary:
    """A finished training in a few figures.

    Args:
        final_loss: Of the last step.
        best_loss: The lowest of any step.
        steps: Updates of the weights.
        tokens: Tokens read by the last attempt, padding left out.
        tokens_per_second: Of all processes together.
        peak_memory_gib: Of the hungriest process.
        seconds: Of the last attempt's training loop.
        device: Name of the GPU, or "cpu".
        figures: Of the held-out rows after training, if it measured them itself.
    """

    final_loss: float
    best_loss: float
    steps: int
    tokens: int
    tokens_per_second: float
    peak_memory_gib: float
    seconds: float
    device: str
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_line(self) -> str:
        """The summary as one line of a log, without a line end."""
        return PREFIX + json.dumps(asdict(self))


def parse_summary(line: str) -> Summary | None:
    """Reads a line that `Summary.to_line` wrote; None for any other line."""
    if not line.startswith(PREFIX + "{"):
        return None
    try:
        return Summary(**json.loads(line.removeprefix(PREFIX)))
    except (ValueError, TypeError):
        return None


def facts(plan: Plan) -> Sequence[tuple[str, str]]:
    """What a plan says, for a reader."""
    processes = str(plan.num_procs_per_node)
    if plan.num_nodes > 1:
        processes = f"{plan.num_nodes} nodes with {processes} each"
    return [
        ("Base model", plan.base),
        ("Dataset", plan.dataset),
        *([("Trained for", plan.transformer_type)] if plan.trainer == TRANSFORMERS else []),
        ("Method", plan.method),
        *([("Learns", plan.learns)] if plan.learns else []),
        ("Epochs", str(plan.epochs)),
        ("Processes", processes),
        ("Rows to train on", f"{plan.train['rows']:,}"),
        ("Training", plan.key),
    ]


def read_summary(training: Path) -> Summary:
    """The summary of a finished training, from what it left in its folder."""
    losses = [row["loss"] for row in read_metrics(training / "metrics.jsonl")]
    result = read_result(training)
    return Summary(
        final_loss=round(losses[-1], 4),
        best_loss=round(min(losses), 4),
        steps=len(losses),
        tokens=result.tokens,
        tokens_per_second=result.tokens_per_second,
        peak_memory_gib=result.peak_memory_gib,
        seconds=result.seconds,
        device=result.device,
        figures=read_evaluation(training).get("figures_after", {}),
    )


def markdown(plan: Plan, summary: Summary) -> str:
    """The summary as KFP shows it."""
    rows = [
        *facts(plan),
        ("Final loss", f"{summary.final_loss:.4f}"),
        ("Best loss", f"{summary.best_loss:.4f}"),
        ("Steps", f"{summary.steps:,}"),
        ("Tokens", f"{summary.tokens:,}"),
        ("Tokens per second", f"{summary.tokens_per_second:,.0f}"),
        ("Peak memory", f"{summary.peak_memory_gib:.2f} GiB"),
        ("Device", summary.device),
        *((f"Held-out {name}", f"{figure:.4f}") for name, figure in summary.figures.items()),
    ]
    lines = [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows]
    return "\n".join(["| Training | |", "|---|---|", *lines, ""])
