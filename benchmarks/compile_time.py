"""How long it takes to compile every pipeline."""

import statistics
from pathlib import Path

from benchmarks.measure import Figure, in_turns, run, seconds_of


def measure(directory: Path) -> list[Figure]:
    """Compiles every pipeline, as ./compile.sh does.

    Args:
        directory: Where to work.
    """
    (runs,) = in_turns(5, lambda number: run(["./compile.sh", "--directory", str(directory)], directory / "log"))
    seconds = seconds_of(runs)
    spread = f"{min(seconds):.1f} to {max(seconds):.1f} s"
    return [Figure("./compile.sh, all pipelines", f"{statistics.median(seconds):.1f} s", "< 5 s", spread)]
