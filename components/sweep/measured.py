"""What is known of a trial: how its model did, or why there is none; and what is kept of those that were not chosen."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_finetune.components.evaluate_model.evaluate import LOCK_NAME
from kfp_finetune.components.sweep.sweep import COMPARISON_NAME, SWEEP_NAME, Sweep, Trial
from kfp_finetune.errors import UserError
from kfp_finetune.manifests import read_manifest
from kfp_finetune.publishing import locked, write_atomically
from kfp_finetune.series import REST_SECONDS, note_lost, note_use
from kfp_finetune.training.epochs import drop_epochs
from kfp_finetune.training.evaluation import EVALUATION_NAME, has_run_tasks, read_evaluation
from kfp_finetune.training.steps import drop_steps
from kfp_finetune.workspace import Workspace

DROPPED_NAME = "evaluation-without-epochs.json"
"""The evaluation of a training whose epochs were removed: who needs the model has to train and evaluate it anew."""

FAILURE_NAME = "failure.txt"


def evaluation_of(workspace: Workspace, trial: Trial) -> Mapping[str, Any]:
    """How a trial's model did, whether it is still there or not; empty if it was not evaluated as planned.

    Args:
        workspace: The tree on the volume.
        trial: The trial.
    """
    training = workspace.root / trial.plan.training
    if has_model(workspace, trial):
        return read_evaluation(training)
    dropped = training / DROPPED_NAME
    found = json.loads(dropped.read_text()) if dropped.exists() else {}
    return found if not trial.plan.evaluation or found.get("tasks") == trial.plan.evaluation else {}


def has_model(workspace: Workspace, trial: Trial) -> bool:
    """Whether a trial's model was evaluated as planned and is there.

    Args:
        workspace: The tree on the volume.
        trial: The trial.
    """
    training = workspace.root / trial.plan.training
    return bool(read_evaluation(training)) and has_run_tasks(training, trial.plan.evaluation)


def note_failure(workspace: Workspace, trial: Trial, failure: str) -> None:
    """Notes why a trial came to nothing, or that it did not fail.

    Args:
        workspace: The tree on the volume.
        trial: The trial.
        failure: The reason; empty for none.
    """
    path = workspace.root / trial.plan.training / FAILURE_NAME
    if failure:
        write_atomically(path, failure)
    else:
        path.unlink(missing_ok=True)


def failure_of(workspace: Workspace, trial: Trial) -> str:
    """Why a trial came to nothing; empty if it did not, or if that is not known.

    Args:
        workspace: The tree on the volume.
        trial: The trial.
    """
    path = workspace.root / trial.plan.training / FAILURE_NAME
    return path.read_text() if path.exists() else ""


def keep_waiting(workspace: Workspace, sweep: Sweep) -> None:
    """Notes that the trials of a sweep are in use, so that no other run of the series removes what still waits.

    Args:
        workspace: The tree on the volume.
        sweep: The sweep.
    """
    (workspace.sweep(sweep.key) / SWEEP_NAME).touch()
    for trial in sweep.trials:
        note_use(workspace, sweep.name, trial.plan.key)


def drop_losers(workspace: Workspace, sweep: Sweep, best: Trial) -> list[str]:
    """Removes the models of the trials that were not chosen; figures, reports and logs of them stay.

    A model that was exported before, that another sweep compares or that something is at work on stays too.

    Args:
        workspace: The tree on the volume.
        sweep: The sweep.
        best: The trial that was chosen.

    Returns:
        The keys of the trainings whose models are gone.
    """
    dropped = []
    for trial in sweep.trials:
        key = trial.plan.key
        if trial == best or read_manifest(workspace.export(key)) or _is_compared(workspace, sweep, key):
            continue
        note_lost(workspace, sweep.name, key)
        if _drop(workspace.root / trial.plan.training, key):
            dropped.append(key)
    return dropped


def _drop(training: Path, key: str) -> bool:
    if not training.is_dir():
        return False
    try:
        with locked(training / ".lock", f"train {key}", 0), locked(training / LOCK_NAME, f"evaluate {key}", 0):
            if (training / EVALUATION_NAME).exists():
                (training / EVALUATION_NAME).replace(training / DROPPED_NAME)
            drop_epochs(training)
            drop_steps(training)
    except UserError:
        return False
    return True


def _is_compared(workspace: Workspace, mine: Sweep, key: str) -> bool:
    """Whether another sweep that has not chosen yet has a training among its trials."""
    others = (path for path in workspace.sweep("*").parent.glob(f"*/{SWEEP_NAME}") if path.parent.name != mine.key)
    return any(_is_waiting(path) and f'"{key}"' in path.read_text() for path in others)


def _is_waiting(sweep: Path) -> bool:
    used, comparison = sweep.stat().st_mtime, sweep.with_name(COMPARISON_NAME)
    is_chosen = comparison.exists() and comparison.stat().st_mtime >= used
    return not is_chosen and time.time() - used < REST_SECONDS
