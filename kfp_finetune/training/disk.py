"""Whether the volume has room for what a training writes."""

import shutil

from kfp_finetune.errors import Problem
from kfp_finetune.manifests import files_below
from kfp_finetune.training.epochs import whole_epochs
from kfp_finetune.workspace import Workspace


def check_room(
    workspace: Workspace, key: str, to_write: int, what: str, mend: str = "set keep_last_n_checkpoints to 1"
) -> list[Problem]:
    """Compares what a training and its export will write with what the volume has left.

    Args:
        workspace: The tree on the volume.
        key: The training's; what lies there already need not be written again.
        to_write: The most bytes that lie there at once.
        what: That takes them, for the message.
        mend: What the user can change to write less.
    """
    return compare_room(workspace, bytes_missing(workspace, key, to_write), what, mend)


def bytes_missing(workspace: Workspace, key: str, to_write: int) -> int:
    """What a training has still to write.

    Args:
        workspace: The tree on the volume.
        key: The training's.
        to_write: The most bytes that lie there at once.
    """
    return max(0, to_write - _written(workspace, key))


def compare_room(workspace: Workspace, needed: int, what: str, mend: str) -> list[Problem]:
    """Compares bytes with what the volume has left.

    Args:
        workspace: The tree on the volume.
        needed: The bytes.
        what: That takes them, for the message.
        mend: What the user can change to write less.
    """
    free = shutil.disk_usage(workspace.root).free
    if needed <= free:
        return []
    return [
        Problem(
            "workspace",
            f"{free / 1e9:,.2f} GB free",
            f"{needed / 1e9:,.2f} GB for {what}",
            f"Free space on the volume or enlarge it, or {mend}.",
        )
    ]


def _written(workspace: Workspace, key: str) -> int:
    training = workspace.training(key)
    there = [*whole_epochs(training).values(), *training.glob("step_*"), workspace.export(key)]
    return sum(path.stat().st_size for directory in there if directory.exists() for path in files_below(directory))
