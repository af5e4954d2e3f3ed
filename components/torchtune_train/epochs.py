"""The finished epochs of a training, each in a directory that appeared whole."""

import re
import shutil
from pathlib import Path

ADAPTER_FOLDER = "adapter"
"""Folder of an epoch that holds the adapter, where no loader of the merged weights applies it a second time."""

RECIPE_STATE_NAME = "recipe_state.pt"
"""File of an epoch that training goes on from; the last epoch has none."""


def whole_epochs(training: Path) -> dict[int, Path]:
    """The epochs that a training has finished, by number from 0, in order."""
    found = {
        int(match.group(1)): path
        for path in training.glob("epoch_*")
        if (match := re.fullmatch(r"epoch_(\d+)", path.name))
    }
    return dict(sorted(found.items()))


def newest_epoch(training: Path) -> Path | None:
    """The directory of the last finished epoch, or None."""
    return next(reversed(whole_epochs(training).values()), None)


def sweep_unfinished(training: Path) -> None:
    """Removes what a killed process left of an epoch that it was saving."""
    for leftover in training.glob(".tmp-epoch_*"):
        shutil.rmtree(leftover, ignore_errors=True)
