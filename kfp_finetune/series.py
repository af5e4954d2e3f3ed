"""Which trainings belong to a series, which export is its newest, and which are old enough to go."""

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from kfp_finetune.errors import UserError, refuse
from kfp_finetune.manifests import Manifest, is_intact, read_manifest
from kfp_finetune.publishing import discard, exclusive, locked
from kfp_finetune.workspace import Workspace, check_series_name

REST_SECONDS = 86_400.0
"""A training that was planned within a day and has no export yet may still be waiting for its turn."""

MERGED_FOLDER = "merged"
"""Folder of an export that transformers loads, and that another training may begin with."""

HOLD_PREFIX = ".hold-"
"""Of the empty files beside an export that a run begins with and has not planned with yet; see `hold_newest`."""


@dataclass(frozen=True)
class Held:
    """An export that a run begins with.

    Args:
        export: Its manifest.
        hold: Name of the file that keeps it, for `release`.
    """

    export: Manifest
    hold: str


def newest_export(workspace: Workspace, name: str) -> Manifest | None:
    """The manifest of the export that a series points to; None if there is none, or it has not all its files.

    Args:
        workspace: The tree on the volume.
        name: The series.

    Raises:
        UserError: If the name is no plain name.
    """
    target = _target(workspace, name)
    return _whole(target) if target else None


def hold_newest(workspace: Workspace, name: str) -> Held | None:
    """Finds the newest export of a series, and keeps it until `release`, or for a day.

    Another run of the series may make a newer one meanwhile and remove what it takes for old; a training that names its
    export is known to it, but a run that has not planned yet is not.

    Args:
        workspace: The tree on the volume.
        name: The series.

    Returns:
        None if the series has no export.

    Raises:
        UserError: If the name is no plain name, or the export has not all its files.
    """
    while (target := _target(workspace, name)) is not None:
        with exclusive(target):
            export = _whole(target)
            if export is not None:
                hold = target.with_name(f"{HOLD_PREFIX}{target.name}-{uuid.uuid4().hex[:8]}")
                hold.touch()
                return Held(export, hold.name)
        if _target(workspace, name) == target:
            raise refuse(
                "start_from",
                f"'latest', where latest/{name} points to {workspace.relative(target)}, which has not all its files",
                "a series whose newest export is whole",
                "Put the files back, or run once with start_from=model: it makes a new one.",
            )
    return None


def release(workspace: Workspace, hold: str) -> None:
    """Ends what `hold_newest` began: from now on a training says that it needs the export.

    Args:
        workspace: The tree on the volume.
        hold: What `hold_newest` gave; empty for nothing.
    """
    if hold:
        (workspace.root / "exports" / Path(hold).name).unlink(missing_ok=True)


def _target(workspace: Workspace, name: str) -> Path | None:
    link = workspace.latest(name)
    try:
        return workspace.export(link.readlink().name)
    except OSError:
        return None


def _whole(export: Path) -> Manifest | None:
    manifest = read_manifest(export)
    return manifest if manifest is not None and is_intact(export, manifest) else None


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


def note_lost(workspace: Workspace, name: str, key: str) -> None:
    """Notes that a series used a training and will not again: it is the first to go, and takes no other's place.

    Args:
        workspace: The tree on the volume.
        name: The series.
        key: The training's.
    """
    entry = _entries(workspace, name) / key
    if entry.exists():
        os.utime(entry, (0, 0))


def prune_series(workspace: Workspace, name: str, keep: int) -> list[str]:
    """Removes the trainings and exports of a series but those that were used last.

    What another series uses too stays, and so does what is being trained or exported, or may be waiting for its turn,
    and what such a training begins with.

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
            if _is_held(export) or _is_begun_with(workspace, key):
                return False
            _discard(export)
            if training.is_dir():
                with locked(training / ".lock", f"remove {key}", 0):
                    pass
            _discard(training)
    except UserError:
        return False
    entry.unlink(missing_ok=True)
    return True


def _is_held(export: Path) -> bool:
    """Whether a run begins with an export and has not planned with it yet; holds that were forgotten go."""
    held = False
    for hold in export.parent.glob(f"{HOLD_PREFIX}{export.name}-*"):
        if _age(hold) < REST_SECONDS:
            held = True
        else:
            hold.unlink(missing_ok=True)
    return held


def _is_begun_with(workspace: Workspace, key: str) -> bool:
    """Whether a training that has no export yet begins with an export."""
    path = f'"{workspace.relative(workspace.export(key) / MERGED_FOLDER)}"'
    plans = (workspace.root / "trainings").glob("*/plan.json")
    return any(path in _text(plan) and read_manifest(workspace.export(plan.parent.name)) is None for plan in plans)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return REST_SECONDS


def _discard(directory: Path) -> None:
    if directory.is_dir():
        discard(directory)
