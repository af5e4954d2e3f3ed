"""The figures of each step: a line in a file, and a line of progress in the log."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchtune.training.metric_logging import MetricLoggerInterface

from kfp_finetune.progress import progress_printer


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

    def log(self, name: str, data: Any, step: int) -> None:
        """Writes one figure of a step."""
        self.log_dict({name: data}, step)

    def log_config(self, config: Any) -> None:
        """Does nothing: the configuration lies beside the file already."""

    def log_dict(self, payload: Mapping[str, Any], step: int) -> None:
        """Writes the figures of a step."""
        figures = {name: float(value) for name, value in payload.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **figures}) + "\n")
        self._report = self._report or progress_printer("train", self._total_steps, "step", done=step - 1)
        self._report(step, **{name: round(figures[name], 4) for name in ("loss",) if name in figures})

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The figures of each step, in order; of a step that was done twice, the later ones.

    A last line that a killed process did not finish is left out.

    Args:
        path: The file that `MetricsFile` wrote; it may be absent.
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
