"""The checkpoints of a training between its epochs, each in a folder that appeared whole."""

import contextlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kfp_finetune.publishing import TEMPORARY_PREFIX, put_in_place
from kfp_finetune.training.epochs import finished_epochs

STEP_NAME = "step.json"
"""File of a step's folder that says what it is of, and how long each other file is."""

FORMAT = 1
"""Raised by hand when a step's files mean something else than before; steps of another format are not gone on from."""


@dataclass(frozen=True)
class Step:
    """Where a training can go on from, inside an epoch.

    Args:
        number: Updates of the weights that were made, those of earlier epochs included.
        epoch: That was being trained, from 0.
        processes: That trained, each of which has a file.
    """

    number: int
    epoch: int
    processes: int


def step_folder(training: Path, number: int) -> Path:
    """Where a step appears.

    Args:
        training: The training's directory.
        number: Of the step.
    """
    return training / f"step_{number}"


def staging_folder(training: Path, number: int) -> Path:
    """Where the processes write a step, each a file, before it appears.

    Args:
        training: The training's directory.
        number: Of the step.
    """
    return training / f"{TEMPORARY_PREFIX}step_{number}"


def step_file(folder: Path, rank: int) -> Path:
    """A process's own file.

    Args:
        folder: The step's, or where it is written.
        rank: The process's number among all.
    """
    return folder / f"rank-{rank}.safetensors"


def newest_step(training: Path) -> Step | None:
    """The newest whole step of the epoch that is to be trained next, or None.

    Args:
        training: The training's directory.
    """
    steps = [step for folder in _folders(training) if (step := _read(folder)) is not None]
    current = [step for step in steps if step.epoch == finished_epochs(training)]
    return max(current, key=lambda step: step.number, default=None)


def publish_step(training: Path, step: Step) -> None:
    """Makes a step appear whose processes have all written their files; older ones go.

    Args:
        training: The training's directory.
        step: What was written.

    Raises:
        OSError: If a file is missing, or the volume is full.
    """
    staging = staging_folder(training, step.number)
    # Not listed: another node's volume may show an older list for a while, but finds each file by its name.
    files = [step_file(staging, rank) for rank in range(step.processes)]
    sizes = {path.name: path.stat().st_size for path in files}
    (staging / STEP_NAME).write_text(json.dumps({"format": FORMAT, **asdict(step), "bytes": sizes}, indent=2))
    put_in_place(staging, step_folder(training, step.number))
    for folder in _folders(training):
        if folder != step_folder(training, step.number):
            _remove(folder)


def drop_steps(training: Path) -> None:
    """Removes all steps, of which none is needed once the epoch is whole that they are of.

    Args:
        training: The training's directory.
    """
    for folder in _folders(training):
        _remove(folder)


def sweep_steps(training: Path) -> None:
    """Removes what nobody goes on from: steps that were never whole, those that are not now, those of earlier epochs.

    Args:
        training: The training's directory; nobody trains it now.
    """
    for leftover in training.glob(f"{TEMPORARY_PREFIX}step_*"):
        shutil.rmtree(leftover, ignore_errors=True)
    newest = newest_step(training)
    for folder in _folders(training):
        if newest is not None and folder == step_folder(training, newest.number):
            continue
        if _read(folder) is None:
            print(f"{folder.name} is not whole and is left out", flush=True)
        _remove(folder)


def _folders(training: Path) -> list[Path]:
    return [path for path in training.glob("step_*") if re.fullmatch(r"step_\d+", path.name)]


def _read(folder: Path) -> Step | None:
    """What a folder is of; None if it is of another format, or a file is missing or of another length."""
    try:
        found = json.loads((folder / STEP_NAME).read_text())
        sizes: Mapping[str, int] = found["bytes"]
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
        step = Step(found["number"], found["epoch"], found["processes"])
        return step if whole and found["format"] == FORMAT and len(sizes) == step.processes else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _remove(folder: Path) -> None:
    """A step goes by a rename first, so that no half of one is ever taken for whole."""
    gone = folder.with_name(f"{TEMPORARY_PREFIX}{folder.name}-gone")
    with contextlib.suppress(FileNotFoundError):  # the end of an epoch removes it too
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
