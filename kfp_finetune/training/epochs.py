"""The finished epochs of a training, each in a directory that appeared whole."""

import re
import shutil
from pathlib import Path

from kfp_finetune.errors import refuse
from kfp_finetune.publishing import TEMPORARY_PREFIX, write_atomically

ADAPTER_FOLDER = "adapter"
"""Folder of an epoch that holds the adapter, where no loader of the merged weights applies it a second time."""

RECIPE_STATE_NAME, STATE_FOLDER = "recipe_state.pt", "state"
"""File or folder of an epoch that training goes on from; the last epoch has none."""

CHOSEN_NAME = "chosen_epoch.txt"
"""File of a training with the name of the epoch that is to be exported."""


def whole_epochs(training: Path) -> dict[int, Path]:
    """The epochs that a training has finished, by number from 0, in order."""
    found = {
        int(match.group(1)): path
        for path in training.glob("epoch_*")
        if (match := re.fullmatch(r"epoch_(\d+)", path.name))
    }
    return dict(sorted(found.items()))


def finished_epochs(training: Path) -> int:
    """How many epochs a training has finished, whether they are still there or not."""
    return max(whole_epochs(training), default=-1) + 1


def check_finished(training: Path, key: str, epochs: int) -> None:
    """Refuses a training that has epochs to go, of which nothing is to be evaluated or exported for good.

    Args:
        training: The training's directory.
        key: Its name, for the message.
        epochs: How many it is to have.

    Raises:
        UserError: If it has fewer.
    """
    finished = finished_epochs(training)
    if finished < epochs:
        given = f"{key}, which has finished {finished} of {epochs} epochs"
        raise refuse("training_plan", given, "a finished training", "Train it first.")


def newest_epoch(training: Path) -> Path | None:
    """The directory of the last finished epoch, or None."""
    return next(reversed(whole_epochs(training).values()), None)


def choose_epoch(training: Path, epoch: Path) -> None:
    """Notes which epoch is to be exported."""
    write_atomically(training / CHOSEN_NAME, epoch.name)


def chosen_epoch(training: Path) -> Path | None:
    """The epoch that was noted, or None."""
    note = training / CHOSEN_NAME
    return training / note.read_text() if note.exists() else None


def drop_surplus(training: Path, keep_last_n: int) -> None:
    """Removes what is not needed once a newer epoch is whole: older epochs, and older states to go on from.

    An epoch goes by a rename first, so that no half of one is ever taken for whole.

    Args:
        training: The training's directory.
        keep_last_n: Epochs to keep; 0 for all.
    """
    epochs = list(whole_epochs(training).values())
    for name in RECIPE_STATE_NAME, STATE_FOLDER:
        states = [epoch / name for epoch in epochs if (epoch / name).exists()]
        for state in states[:-1]:
            _remove(state)
    for epoch in epochs[:-keep_last_n] if keep_last_n else []:
        epoch.rename(epoch.with_name(f"{TEMPORARY_PREFIX}{epoch.name}"))
    sweep_unfinished(training)


def drop_epochs(training: Path) -> None:
    """Removes all epochs of a training, and the note which of them is to be exported.

    Args:
        training: The training's directory.
    """
    (training / CHOSEN_NAME).unlink(missing_ok=True)
    for epoch in whole_epochs(training).values():
        epoch.rename(epoch.with_name(f"{TEMPORARY_PREFIX}{epoch.name}"))
    sweep_unfinished(training)


def sweep_unfinished(training: Path) -> None:
    """Removes what a killed process left of an epoch that it was saving or removing."""
    for leftover in training.glob(f"{TEMPORARY_PREFIX}epoch_*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove(state: Path) -> None:
    if state.is_file():
        state.unlink()
        return
    gone = state.parent.with_name(f"{TEMPORARY_PREFIX}{state.parent.name}-{state.name}")
    state.rename(gone)
