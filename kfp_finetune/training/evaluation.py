"""How a trained model compares with its base on the held-out rows, as it lies in the training's folder."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EVALUATION_NAME = "evaluation.json"
"""The file: `loss_before`, `loss_after` and more, by who wrote it."""

EVALUATED = "evaluation"
"""The fact of an export's manifest that tells which evaluation its card and its page show, by `evaluation_digest`."""


def perplexity(loss: float) -> float:
    """The exponential of a loss in nats; infinite where it is too large for a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


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


def evaluation_digest(training: Path) -> str:
    """SHA-256 of the file, by which an export knows whether its card tells the newest figures; empty without one.

    Args:
        training: The training's folder.
    """
    path = training / EVALUATION_NAME
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def tells_newest(facts: Mapping[str, Any], training: Path) -> bool:
    """Whether the card and the page of an export tell the newest evaluation of its training.

    Args:
        facts: Of the export's manifest.
        training: The training's folder.
    """
    return evaluation_digest(training) in ("", facts.get(EVALUATED))
