"""What a training measured, as its first process leaves it."""

import json
from dataclasses import dataclass
from pathlib import Path

from kfp_finetune.metrics import read_metrics

RESULT_NAME = "result.json"


@dataclass(frozen=True)
class Result:
    """What a finished training measured.

    Args:
        tokens: Tokens read by all processes since the start or the last resume, padding left out.
        seconds: Of the training loop, checkpoints included, start-up left out.
        peak_memory_gib: Of the hungriest process: GPU memory, or resident memory on a CPU; 0 if unknown.
        device: Name of the GPU, or "cpu"; "unknown" if the training was killed when it had just ended.
        world_size: Number of processes; 0 if unknown.
    """

    tokens: int
    seconds: float
    peak_memory_gib: float
    device: str
    world_size: int

    @property
    def tokens_per_second(self) -> float:
        """Of all processes together."""
        return round(self.tokens / max(self.seconds, 1e-9), 1)


def read_result(training: Path) -> Result:
    """The result of a finished training; of one killed between its last epoch and its result, what its steps tell.

    Args:
        training: The training's directory.
    """
    path = training / RESULT_NAME
    if path.exists():
        return Result(**json.loads(path.read_text()))
    rows = read_metrics(training / "metrics.jsonl")
    tokens = round(sum(row.get("tokens", 0.0) for row in rows))
    return Result(tokens, round(sum(row.get("seconds", 0.0) for row in rows), 3), 0.0, "unknown", 0)
