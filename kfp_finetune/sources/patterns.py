"""Which files of a source are wanted."""

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Patterns:
    """Shell patterns over file names relative to the source; a file is wanted if it is allowed and not ignored.

    Args:
        allow: A file must match one of these.
        ignore: A file must match none of these.
    """

    allow: tuple[str, ...] = ("*",)
    ignore: tuple[str, ...] = ()

    def wants(self, path: str) -> bool:
        """Whether a file of this name, relative to the source, is to be fetched."""
        return any(fnmatchcase(path, pattern) for pattern in self.allow) and not any(
            fnmatchcase(path, pattern) for pattern in self.ignore
        )
