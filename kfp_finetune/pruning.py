"""Removes old datasets and models from the volume, and none that something still needs."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import rmtree

from kfp_finetune.errors import UserError
from kfp_finetune.manifests import MANIFEST_NAME, Manifest, read_manifest
from kfp_finetune.publishing import PARTIAL_PREFIX, TEMPORARY_PREFIX, discard, exclusive, partial_directory
from kfp_finetune.workspace import Workspace

REST_SECONDS = 86_400.0
"""An entry that was used within a day stays: a run that has fetched it may not have planned with it yet."""

PARTIAL_SECONDS = 7 * 86_400.0
"""What a killed download left stays for a week."""


def prune(workspace: Workspace, newest: Manifest, keep: int) -> list[str]:
    """Removes all but the entries of a source that were used last, and downloads that nobody went on with.

    An entry stays if a training or an export on the volume names it, or if it was used within `REST_SECONDS`.

    Args:
        workspace: The tree on the volume.
        newest: What was just published or found.
        keep: How many entries of its source to keep, with this one; 0 for all.

    Returns:
        The removed entries' paths, relative to the workspace.
    """
    folder = (workspace.root / newest.path).parent
    for leftover in folder.glob(f"{PARTIAL_PREFIX}*"):
        if _age(leftover) > PARTIAL_SECONDS:
            _remove(folder / leftover.name.removeprefix(PARTIAL_PREFIX), _discard_old_partial)
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        _remove(folder / leftover.name.removeprefix(TEMPORARY_PREFIX).rpartition("-")[0], _discard_nothing)
    if keep <= 0:
        return []
    entries = [path.parent for path in folder.glob(f"*/{MANIFEST_NAME}") if not path.parent.name.startswith(".")]
    same = [path for path in entries if (manifest := read_manifest(path)) and manifest.source == newest.source]
    by_use = sorted(same, key=lambda path: (path.name != newest.key, _age(path / MANIFEST_NAME)))
    old = [path for path in by_use[keep:] if _age(path / MANIFEST_NAME) > REST_SECONDS]
    discard_unneeded = partial(_discard_unneeded, workspace)
    removed = [workspace.relative(path) for path in old if _remove(path, discard_unneeded)]
    if removed:
        print(f"removed {len(removed)} older of {newest.source}: {', '.join(removed)}", flush=True)
    return removed


def _is_needed(workspace: Workspace, key: str) -> bool:
    """Whether a training or an export says that it was made from an entry."""
    for pattern in ("trainings/*/plan.json", "trainings/*/config.yaml", f"exports/*/{MANIFEST_NAME}"):
        for path in workspace.root.glob(pattern):
            if key in _text(path):
                return True
    return False


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _remove(target: Path, removal: Callable[[Path], bool]) -> bool:
    """Removes an entry, or what is beside it, unless another process is at work on it.

    Args:
        target: The entry's directory; what a killed process left beside it goes in any case.
        removal: Looks at it once more, now that nobody else can use it, and says whether it was removed.
    """
    try:
        with exclusive(target, wait_seconds=0):
            return removal(target)
    except (UserError, FileNotFoundError):
        return False


def _discard_unneeded(workspace: Workspace, target: Path) -> bool:
    if _age(target / MANIFEST_NAME) <= REST_SECONDS or _is_needed(workspace, target.name):
        return False
    discard(target)
    return True


def _discard_old_partial(target: Path) -> bool:
    if _age(partial_directory(target)) <= PARTIAL_SECONDS:
        return False
    rmtree(partial_directory(target), ignore_errors=True)
    return True


def _discard_nothing(target: Path) -> bool:
    return False


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
