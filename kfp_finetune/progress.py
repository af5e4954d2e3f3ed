"""Progress of long work as lines of JSON: readable in a log, and read again by whoever shows a bar.

A line looks like `progress {"what": "train", "done": 12, "total": 200, "unit": "step", "eta_seconds": 43, ...}`.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

PREFIX = "progress "


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is.

    Args:
        what: The work, in a word or two.
        done: How many units are done.
        total: How many there are.
        unit: What is counted: "step", "byte", "row".
        eta_seconds: Expected seconds to the end, or None while unknown.
        figures: What else is worth showing, such as the loss.
    """

    what: str
    done: int
    total: int
    unit: str
    eta_seconds: float | None = None
    figures: dict[str, float] = field(default_factory=dict)

    def to_line(self) -> str:
        """The progress as one line of text, without a line end."""
        return PREFIX + json.dumps(asdict(self))


def parse_progress(line: str) -> Progress | None:
    """Reads a line that `Progress.to_line` wrote; None for any other line."""
    start = line.find(PREFIX + "{")
    if start < 0:
        return None
    try:
        progress = Progress(**json.loads(line[start + len(PREFIX) :]))
    except (ValueError, TypeError):
        return None
    return progress if _is_sound(progress) else None


def _is_sound(progress: Progress) -> bool:
    """Whether the fields, read from a line that anything may have printed, have their types."""
    return (
        isinstance(progress.what, str)
        and isinstance(progress.done, int)
        and isinstance(progress.total, int)
        and isinstance(progress.unit, str)
        and isinstance(progress.eta_seconds, float | int | None)
        and isinstance(progress.figures, dict)
        and all(isinstance(figure, float | int) for figure in progress.figures.values())
    )


def progress_printer(
    what: str, total: int, unit: str, *, done: int = 0, interval_seconds: float = 1.0
) -> Callable[..., None]:
    """A function that prints how far the work is, at most once an interval and always at the end.

    Args:
        what: The work, in a word or two.
        total: How many units there are.
        unit: What is counted.
        done: How many were done before this process began; the ETA does not count on them.
        interval_seconds: Least seconds between two lines.

    Returns:
        A function of the number of units done so far and, by keyword, figures to show.
    """
    began = time.monotonic()
    printed = -interval_seconds
    before = done

    def report(now_done: int, **figures: float) -> None:
        nonlocal printed
        elapsed = time.monotonic() - began
        if elapsed - printed < interval_seconds and now_done < total:
            return
        printed = elapsed
        rate = (now_done - before) / elapsed if elapsed > 0 else 0.0
        eta = round((total - now_done) / rate, 1) if rate > 0 else None
        print(Progress(what, now_done, total, unit, eta, figures).to_line(), flush=True)

    return report
