"""Reads the figures that a training's first process writes for each step."""

import json
from pathlib import Path


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
