"""Names that a server gives to its files, before any becomes a path."""

from collections.abc import Iterable

from kfp_finetune.errors import Problem, UserError
from kfp_finetune.manifests import MANIFEST_NAME

LONGEST_COMPONENT = 255
LONGEST_PATH = 1024
SHOWN = 5


def is_hidden(name: str) -> bool:
    """Whether a file is left out as a local source's would be: hidden, or the manifest of a published directory."""
    return name == MANIFEST_NAME or any(part.startswith(".") and part.strip(".") for part in name.split("/"))


def check_names(what: str, uri: str, names: Iterable[str]) -> None:
    """Accepts names that each become one file below a directory, and nothing else.

    Args:
        what: Name of the parameter that asked for them, for messages.
        uri: The source as the user wrote it.
        names: Relative to the source, with forward slashes.

    Raises:
        UserError: If a name leads elsewhere, is too long for a file system, or needs a folder where a file is to lie.
    """
    names = list(names)
    bad = {name: reason for name in names if (reason := _fault(name))}
    folders = {
        "/".join(parts[:depth]) for parts in (name.split("/") for name in names) for depth in range(1, len(parts))
    }
    bad |= {name: "is a file and a folder" for name in names if name in folders}
    if bad:
        raise UserError(
            [
                Problem(
                    what,
                    f"{uri} with a file named {shown(name)}, which {reason}",
                    "names that lie below one folder, of at most 255 bytes between slashes",
                    "Rename the file at the source, or leave it out with ignore_patterns.",
                )
                for name, reason in list(bad.items())[:SHOWN]
            ]
        )


def _fault(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/") or "\\" in name:
        return "is an absolute name or has a backslash"
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of its folder or has an empty part"
    if any(not letter.isprintable() for letter in name):
        return "has characters that cannot be shown"
    if any(len(part.encode()) > LONGEST_COMPONENT for part in parts) or len(name.encode()) > LONGEST_PATH:
        return "is longer than a file system takes"
    return ""


def shown(name: str) -> str:
    """A name as a message shows it: in quotes, without what a terminal would obey, and not too long."""
    return repr(name if len(name) <= 80 else f"{name[:60]}...({len(name)} characters)")
