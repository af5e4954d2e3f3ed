"""The figures of each step: a line in a file, and a line of progress in the log."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torchtune.training.metric_logging import MetricLoggerInterface

from kfp_finetune.progress import progress_printer

LABELS_ONLY = "tokens_per_second_per_gpu"
"""torchtune's own figure counts the tokens of the loss alone, which says little about the speed."""


class MetricsFile(MetricLoggerInterface):
    """Appends each step's figures to a file of JSON lines and prints the progress.

    Args:
        path: The file.
        total_steps: Steps of the whole training, for the progress.
    """

    def __init__(self, path: str, total_steps: int):
        self._file = Path(path).open("a", buffering=1)  # noqa: SIM115  closed by close()
        self._total_steps = total_steps
        self._report: Any = None
        self._tokens_read: Callable[[], int] = lambda: 0
        self._before = (0, time.monotonic())

    def count_tokens(self, tokens_read: Callable[[], int]) -> None:
        """Adds the tokens a second to every step.

        Args:
            tokens_read: Tokens that all processes have read so far, padding left out.
        """
        self._tokens_read = tokens_read
        self._before = (tokens_read(), time.monotonic())

    def log(self, name: str, data: Any, step: int) -> None:
        """Writes one figure of a step."""
        self.log_dict({name: data}, step)

    def log_config(self, config: Any) -> None:
        """Does nothing: the configuration lies beside the file already."""

    def log_dict(self, payload: Mapping[str, Any], step: int) -> None:
        """Writes the figures of a step."""
        figures = {name: float(value) for name, value in payload.items() if name != LABELS_ONLY}
        figures |= self._speed()
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **figures}) + "\n")
        self._report = self._report or progress_printer("train", self._total_steps, "step", done=step - 1)
        self._report(
            step, **{name: round(figures[name], 4) for name in ("loss", "tokens_per_second") if name in figures}
        )

    def _speed(self) -> dict[str, float]:
        now = (self._tokens_read(), time.monotonic())
        tokens, seconds = now[0] - self._before[0], now[1] - self._before[1]
        self._before = now
        speed = round(tokens / max(seconds, 1e-9), 1)
        return {"tokens": tokens, "seconds": round(seconds, 4), "tokens_per_second": speed}

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
