"""Which trainings belong to a series, and which of them are old enough to go."""

import time
from pathlib import Path

from kfp_finetune.errors import UserError
from kfp_finetune.manifests import read_manifest
from kfp_finetune.publishing import discard, exclusive, locked
from kfp_finetune.workspace import Workspace, check_series_name

REST_SECONDS = 86_400.0
"""A training that was planned within a day and has no export yet may still be waiting for its turn."""


def _entries(workspace: Workspace, name: str) -> Path:
    check_series_name(name)
    return workspace.root / "series" / name


def note_use(workspace: Workspace, name: str, key: str) -> None:
    """Notes that a series uses a training now.

    Args:
        workspace: The tree on the volume.
        name: The series.
        key: The training's.

    Raises:
        UserError: If the name is no plain name.
    """
    entry = _entries(workspace, name) / key
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.touch()


def prune_series(workspace: Workspace, name: str, keep: int) -> list[str]:
    """Removes the trainings and exports of a series but those that were used last.

    What another series uses too stays, and so does what is being trained or exported, or may be waiting for its turn.

    Args:
        workspace: The tree on the volume.
        name: The series.
        keep: How many to keep; 0 for all.

    Returns:
        The keys of those that were removed.
    """
    if keep <= 0:
        return []
    entries = sorted(_entries(workspace, name).glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    removed = [entry.name for entry in entries[keep:] if _remove(workspace, entry)]
    if removed:
        print(f"removed {len(removed)} older of series {name}: {', '.join(removed)}", flush=True)
    return removed


def _remove(workspace: Workspace, entry: Path) -> bool:
    key = entry.name
    export, training = workspace.export(key), workspace.training(key)
    rests = read_manifest(export) is None and time.time() - entry.stat().st_mtime < REST_SECONDS
    if rests or any(link.resolve() == export.resolve() for link in (workspace.root / "latest").glob("*")):
        return False
    if any(other != entry for other in (workspace.root / "series").glob(f"*/{key}")):
        entry.unlink()  # The other series keeps it.
        return False
    try:
        with exclusive(export, wait_seconds=0), exclusive(training, wait_seconds=0):
            _discard(export)
            if training.is_dir():
                with locked(training / ".lock", f"remove {key}", 0):
                    pass
            _discard(training)
    except UserError:
        return False
    entry.unlink(missing_ok=True)
    return True


def _discard(directory: Path) -> None:
    if directory.is_dir():
        discard(directory)
