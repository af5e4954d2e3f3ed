"""Where a dataset or a model comes from, behind one protocol."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from kfp_finetune.errors import refuse
from kfp_finetune.sources.local import LocalSource
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.workspace import FileEntry


class Source(Protocol):
    """A place that holds files, at one revision."""

    @property
    def uri(self) -> str:
        """The source as the user wrote it."""

    def revision(self) -> str:
        """What is there now, as exactly as the source can say it; equal revisions mean equal files.

        Raises:
            UserError: If there is nothing, or no permission to read it.
        """

    def paths(self) -> list[str]:
        """The files' names relative to the source, with forward slashes, sorted."""

    def fetch(self, target: Path, on_bytes: Callable[[int, int], None]) -> None:
        """Puts every file below a directory.

        Args:
            target: An empty directory.
            on_bytes: Called with the bytes done so far and the bytes in all.
        """

    def holds(self, files: Sequence[FileEntry]) -> bool:
        """Whether fetched files are, byte for byte, those of the revision."""


def open_source(what: str, uri: str, patterns: Patterns) -> Source:
    """The source that a URI names.

    Args:
        what: Name of the parameter that asks for it, for messages.
        uri: A path, or file:// and a path; see `LocalSource`.
        patterns: Which of its files are wanted.

    Raises:
        UserError: If the URI is empty or of a kind that is not supported.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "file", uri
    if scheme != "file" or not rest.strip():
        raise refuse(
            what,
            repr(uri),
            "a path, or file:// and a path",
            "Download it to the volume first and give its path.",
        )
    return LocalSource(what, uri, Path(rest), patterns)
