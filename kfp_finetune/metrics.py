"""The figures of each step of a training, as its first process writes them and as others read them."""

import json
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from kfp_finetune.progress import progress_printer

METRICS_NAME = "metrics.jsonl"
SHOWN = ("loss", "rewards/accuracies", "rewards/margins", "tokens_per_second")
"""Figures that the progress shows too."""


def step_recorder(path: Path, total_steps: int) -> Callable[[int, Mapping[str, float]], None]:
    """A function that appends a step's figures to a file of JSON lines and prints the progress.

    Args:
        path: The file.
        total_steps: Of the whole training.

    Returns:
        A function of the step's number, from 1, and its figures.
    """
    report: Callable[..., None] | None = None

    def record(step: int, figures: Mapping[str, float]) -> None:
        nonlocal report
        if report is None:
            _end_line(path)
        with path.open("a") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **figures}) + "\n")
        report = report or progress_printer("train", total_steps, "step", done=step - 1)
        report(step, **{name: round(figures[name], 4) for name in SHOWN if name in figures})

    return record


def _end_line(path: Path) -> None:
    """Ends a last line that a killed process did not finish, so that the next one is not lost with it."""
    if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        with path.open("a") as file:
            file.write("\n")


def host_memory() -> dict[str, float]:
    """The most resident memory that this process has had, in GiB, as a figure of a step."""
    return {"peak_memory_host": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30, 3)}


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The figures of each step, in order; of a step that was done twice, the later ones.

    A last line that a killed process did not finish is left out.

    Args:
        path: Lines of JSON, each with a `step`; it may be absent.
    """
    if not path.exists():
        return []
    rows: dict[int, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[int(row["step"])] = row
    return [rows[step] for step in sorted(rows)]
