"""The memory of preference tuning, as torchtune's recipes compute it by themselves against ours."""

import contextlib
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.estimate_error import OF_PAIRS, plan_both, prepare_kinds, run
from benchmarks.measure import Figure

ROUNDS = 3


def measure(directory: Path) -> list[Figure]:
    """Trains with each of `OF_PAIRS` both ways, in turns, each in a process of its own.

    Args:
        directory: Where to work.
    """
    ratios: dict[str, list[float]] = {}
    with (directory / "log").open("w") as log, contextlib.redirect_stdout(log):
        kind = prepare_kinds(directory).of_pairs
        for name, given in OF_PAIRS.items():
            configs = plan_both(kind, given)
            ratios[name] = [_ratio(given.get("method", "lora"), configs) for _ in range(ROUNDS)]
    return [
        Figure(
            f"memory of a training, torchtune's recipe / ours, {name}",
            f"{statistics.median(found):.2f}",
            "",
            f"{min(found):.2f} to {max(found):.2f}",
        )
        for name, found in ratios.items()
    ]


def _ratio(method: str, configs: Sequence[str]) -> float:
    theirs, ours = (run(method, configs, side) for side in ("torchtune", "ours"))
    return theirs / ours
