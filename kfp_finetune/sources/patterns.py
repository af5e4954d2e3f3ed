"""Which files of a source are wanted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import has_magic

from kfp_finetune.errors import UserError, refuse
from kfp_finetune.sources.names import SHOWN, shown
from kfp_finetune.sources.redaction import redact

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Endings of files that run code when they are loaded."""


@dataclass(frozen=True)
class Patterns:
    """Shell patterns over file names relative to the source; a file is wanted if it is allowed and not ignored.

    Args:
        allow: A file must match one of these; a pickle, one that ends like it: *.bin, and not *.
        ignore: A file must match none of these.
    """

    allow: tuple[str, ...] = ("*",)
    ignore: tuple[str, ...] = ()

    def wants(self, path: str) -> bool:
        """Whether a file of this name, relative to the source, is to be fetched."""
        pickle = next((ending for ending in PICKLES if path.lower().endswith(ending)), "")
        return any(
            fnmatchcase(path, pattern) and pattern.lower().endswith(pickle) for pattern in self.allow
        ) and not any(fnmatchcase(path, pattern) for pattern in self.ignore)

    def changed(self, allow: Sequence[str], ignore: Sequence[str]) -> "Patterns":
        """These patterns, with what a user gave instead; empty leaves them as they are."""
        return Patterns(tuple(allow) or self.allow, tuple(ignore) or self.ignore)


def split_pattern(path: str) -> tuple[str, str]:
    """The folder before the first wildcard of a path, and the rest, which is a pattern; empty if there is none."""
    if not has_magic(path):
        return path, ""
    parts = path.rstrip("/").split("/")
    first = next(number for number, part in enumerate(parts) if has_magic(part))
    return "/".join(parts[:first]), "/".join(parts[first:])


def matches_glob(path: str, pattern: str) -> bool:
    """Whether a name matches a pattern in which * stays within a folder, and ** stands for any number of folders."""
    names = path.split("/")
    reached = {0}
    for component in pattern.split("/"):
        if component == "**":
            reached = set(range(min(reached), len(names) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(names) and fnmatchcase(names[at], component)}
    return len(names) in reached


def no_match(what: str, uri: str, there: Iterable[str]) -> UserError:
    """The error for an address whose pattern no file matches.

    Args:
        what: Name of the parameter that asked for the source.
        uri: The source as the user wrote it.
        there: The names that there are.
    """
    names = sorted(there)
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    listed = ", ".join(map(shown, names[:SHOWN])) + more
    return refuse(
        what,
        f"{redact(uri)}, which matches nothing of what is there: {listed or 'no file'}",
        "a pattern in which * and ? stand for parts of a name, [ab] for a letter, ** for any folders",
        "Correct the pattern.",
    )
