"""Where things lie on the volume, and what they are called."""

import hashlib
import json
import os
import re
import stat
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_finetune.errors import UserError, refuse

MOUNT_PATH = "/workspace"
"""Where the volume is mounted in every step's pod."""

REPORT_NAME = "report.html"
"""The page on a whole run: evaluation leaves it in the training's directory, and the export takes it along."""

FETCH_REPORT_NAME = ".report.html"
"""The page on a dataset or model; hidden, so that who copies a model's files does not take it for one of them."""

INDEX_NAME = "model.safetensors.index.json"
"""transformers' name for the list of which file holds which tensor."""

SERIES_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True)
class Workspace:
    """The tree on the volume that all steps share.

    Args:
        root: Where the volume is mounted, or any directory on a laptop.
    """

    root: Path

    def dataset(self, key: str) -> Path:
        """The directory of a fetched dataset."""
        return self.root / "datasets" / key

    def model(self, key: str) -> Path:
        """The directory of a fetched model."""
        return self.root / "models" / key

    def training(self, key: str) -> Path:
        """The directory of a training: its config, tokens, logs, metrics and epochs."""
        return self.root / "trainings" / key

    def export(self, key: str) -> Path:
        """The directory of a finished model."""
        return self.root / "exports" / key

    def sweep(self, key: str) -> Path:
        """The directory of a sweep: its trials, how they compare, and which was chosen."""
        return self.root / "sweeps" / key

    def latest(self, name: str) -> Path:
        """The link to the newest good export of a series.

        Raises:
            UserError: If the name could be anything but one plain path component.
        """
        check_series_name(name)
        return self.root / "latest" / name

    def relative(self, path: Path) -> str:
        """A path below the root, relative to it, with forward slashes."""
        return path.relative_to(self.root).as_posix()


def open_workspace(root: str) -> Workspace:
    """The workspace at a directory, which is made if it is absent.

    On a volume that its group may write to, what this process makes from now on is the group's too: training pods may
    run as another user than the steps.

    Args:
        root: Absolute path of the mounted volume or of a directory.

    Raises:
        UserError: If it is not a directory that this process can write to.
    """
    path = Path(root)
    if not path.is_absolute():
        raise refuse("workspace", root, "an absolute path", f"Give {path.resolve()} instead.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error
    if path.stat().st_mode & stat.S_IWGRP:
        os.umask(os.umask(0) & ~stat.S_IWGRP)
    return Workspace(path)


def _unwritable(path: Path, error: OSError) -> UserError:
    there = next(place for place in (path, *path.parents) if os.path.exists(place))
    found = there.stat()
    return refuse(
        "workspace",
        f"{path}, where this step (uid {os.getuid()}, gid {os.getgid()}) cannot write: {error.strerror}; "
        f"{there} is owned by {found.st_uid}:{found.st_gid} with mode {found.st_mode & 0o7777:o}",
        "a directory that the step's user or group may write to",
        "Set prepare_volume once, which makes the volume's root group-writable for gid 0, or choose another volume.",
    )


def check_series_name(name: str) -> None:
    """Accepts a name that is safe as one path component and as a Kubernetes label value.

    Raises:
        UserError: If it is not.
    """
    if not SERIES_NAME.fullmatch(name):
        raise refuse(
            "name",
            repr(name),
            "1 to 40 lower-case letters, digits and dashes, starting and ending with a letter or digit",
            "Choose a plain name such as my-model.",
        )


def content_key(parts: Mapping[str, Any]) -> str:
    """A name made from what a thing is: equal parts give equal names on every machine.

    Args:
        parts: JSON values; their order does not matter.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of the canonical JSON.
    """
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def point_latest(workspace: Workspace, name: str, export: Path) -> Path:
    """Makes the series' stable path point to an export, in one step.

    Args:
        workspace: The tree on the volume.
        name: The series.
        export: The export's directory.

    Returns:
        The link.
    """
    link = workspace.latest(name)
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{name}.{uuid.uuid4().hex[:8]}")
    temporary.symlink_to(os.path.relpath(export, link.parent), target_is_directory=True)
    temporary.replace(link)
    return link
