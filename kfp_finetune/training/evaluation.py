"""How a trained model compares with its base on the held-out rows, as it lies in the training's folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EVALUATION_NAME = "evaluation.json"
"""The file: `loss_before`, `loss_after` and more, by who wrote it."""


def read_evaluation(training: Path) -> Mapping[str, Any]:
    """What the file says; nothing if the training was not evaluated.

    Args:
        training: The training's folder.
    """
    path = training / EVALUATION_NAME
    return json.loads(path.read_text()) if path.exists() else {}


def has_run_tasks(training: Path, tasks: Mapping[str, Any]) -> bool:
    """Whether a training's model was evaluated on all that `Plan.evaluation` asks for.

    Args:
        training: The training's folder.
        tasks: What it asks for; empty for nothing beyond the held-out rows.
    """
    return not tasks or read_evaluation(training).get("tasks") == tasks
