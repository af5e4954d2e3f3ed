"""Makes the root of a mounted volume writable for group 0, which the steps run in; run in the pod that prepares it."""

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from kfp_finetune.errors import UserError
from kfp_finetune.workspace import open_workspace

SHARED = stat.S_ISGID | stat.S_IRWXG
"""The group may do everything, and what is made below is the group's."""


def share(root: Path) -> str:
    """Makes a directory group 0's to write to; one that everybody may write to stays as it is.

    What lies below is left alone.

    Args:
        root: The directory.

    Returns:
        Nothing if it can be written to, or why not.
    """
    if not _is_shared(root):
        with suppress(PermissionError):
            os.chown(root, -1, 0)
            root.chmod(stat.S_IMODE(root.stat().st_mode) | SHARED)
    if not _is_shared(root):
        found = root.stat()
        return f"{root} is owned by {found.st_uid}:{found.st_gid} with mode {stat.S_IMODE(found.st_mode):o}"
    try:
        open_workspace(str(root))
    except UserError as error:
        return error.problems[0].given
    return ""


def _is_shared(root: Path) -> bool:
    found = root.stat()
    for_group = found.st_gid == 0 and found.st_mode & stat.S_IRWXG == stat.S_IRWXG
    return for_group or found.st_mode & stat.S_IRWXO == stat.S_IRWXO


if __name__ == "__main__":
    sys.exit(share(Path(sys.argv[1])) or 0)
