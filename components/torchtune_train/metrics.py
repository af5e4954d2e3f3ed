"""The figures of each step: a line in a file, a line of progress in the log, and trackers where asked for."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torchtune.training.metric_logging import MetricLoggerInterface

from kfp_finetune.components.torchtune_train.loggers import open_loggers
from kfp_finetune.metrics import host_memory, step_recorder

LABELS_ONLY = "tokens_per_second_per_gpu"
"""torchtune's own figure counts the tokens of the loss alone, which says little about the speed."""


class MetricsFile(MetricLoggerInterface):
    """Appends each step's figures to a file of JSON lines and prints the progress.

    `peak_memory_gib` is the most GPU memory of any step, which torchtune counts anew for each.

    Args:
        path: The file.
        total_steps: Steps of the whole training, for the progress.
        loggers: Trackers that get the figures too, as `loggers.check_loggers` accepts them; the file's folder is the
            training's.
    """

    def __init__(self, path: str, total_steps: int, loggers: Mapping[str, Mapping[str, Any]] | None = None):
        self._record = step_recorder(Path(path), total_steps)
        self._loggers = open_loggers(loggers or {}, Path(path).parent)
        self._learning_rate = 0.0
        self._tokens_read: Callable[[], int] = lambda: 0
        self._before = (0, time.monotonic())
        self.peak_memory_gib = 0.0

    def begin(self, learning_rate: float, tokens_read: Callable[[], int]) -> None:
        """Adds to every step its own learning rate and the tokens a second.

        The recipes log a step's figures once the rate of the next one is set.

        Args:
            learning_rate: Of the first step.
            tokens_read: Tokens that all processes have read so far, padding left out.
        """
        self._learning_rate = learning_rate
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
        if "lr" in figures:
            figures["lr"], self._learning_rate = self._learning_rate, figures["lr"]
        self.peak_memory_gib = max(self.peak_memory_gib, figures.get("peak_memory_alloc", 0.0))
        figures |= self._speed() | host_memory()
        self._record(step, figures)
        self._loggers.log_dict(figures, step)

    def _speed(self) -> dict[str, float]:
        now = (self._tokens_read(), time.monotonic())
        tokens, seconds = now[0] - self._before[0], now[1] - self._before[1]
        self._before = now
        speed = round(tokens / max(seconds, 1e-9), 1)
        return {"tokens": tokens, "seconds": round(seconds, 4), "tokens_per_second": speed}

    def close(self) -> None:
        """Closes the trackers."""
        self._loggers.close()
