"""Where a dataset or a model comes from, behind one protocol."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from kfp_finetune.errors import refuse
from kfp_finetune.manifests import FileEntry
from kfp_finetune.sources.hub_address import is_hub_name, parse_address
from kfp_finetune.sources.huggingface import HubSource
from kfp_finetune.sources.local import LocalSource
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.redaction import redact
from kfp_finetune.sources.s3 import S3Options, S3Source, parse_s3

SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL | re.IGNORECASE)


class Source(Protocol):
    """A place that holds files, at one revision."""

    @property
    def uri(self) -> str:
        """The source as the user wrote it."""

    @property
    def origin(self) -> str:
        """What tells equal revisions of different places apart; empty where the revision is made from contents."""

    def revision(self) -> str:
        """What is there now, as exactly as the source can say it; equal revisions mean equal files.

        Raises:
            UserError: If there is nothing, or no permission to read it.
        """

    def files(self) -> Mapping[str, int]:
        """The wanted files' names relative to the source, with forward slashes, and their sizes in bytes.

        Raises:
            UserError: If there is none, or a name that no directory can hold.
        """

    def fetch(self, target: Path, on_bytes: Callable[[int, int], None]) -> tuple[FileEntry, ...]:
        """Puts every wanted file below a directory, and checks it against what the source says of it.

        Args:
            target: A directory, empty or with what an attempt left at the same revision.
            on_bytes: Called with the bytes done so far and the bytes in all.

        Returns:
            The files, sorted by name; nothing else is left in the directory.

        Raises:
            Interrupted: If the source or the way to it failed, and what has come is worth keeping.
            UserError: If the files changed meanwhile, or may not be read.
        """


def open_source(what: str, uri: str, patterns: Patterns, *, s3: S3Options | None = None, config: str = "") -> Source:
    """The source that a URI names.

    Args:
        what: "dataset" or "model": the parameter that asks for it and, on the Hub, the kind of repository.
        uri: A path or file:// and a path (`LocalSource`), hf:// or the name of a Hub repository (`HubSource`), or
            s3:// (`S3Source`). What has no scheme is a path if it exists, and else a Hub name if it can be one. What
            does not exist and has a wildcard is a pattern of files below the folder before it.
        patterns: Which of its files are wanted.
        s3: How S3 is reached. Default: as the environment says.
        config: The configuration of a dataset repository that is wanted; empty for the default one.

    Raises:
        UserError: If the URI is empty or of a kind that is not supported.
    """
    found = SCHEME.fullmatch(uri)
    scheme, rest = (found[1].lower(), found[2]) if found else ("", uri)
    if scheme == "hf" or (not scheme and not Path(uri).exists() and is_hub_name(uri)):
        address = parse_address(what, uri, rest)
        if not (config and address.path):
            return HubSource(what, uri, address, patterns, config)
    if config:
        raise refuse(
            "config",
            f"{config!r} for {redact(uri)}",
            "the configuration of a whole dataset repository, hf://ORGANISATION/NAME",
            "Leave config empty, and name a folder or files in the address or in allow_patterns.",
        )
    if scheme == "s3":
        return S3Source(what, uri, parse_s3(what, uri, rest), patterns, s3 or S3Options())
    if scheme not in ("", "file") or not rest.strip():
        raise refuse(
            what,
            redact(repr(uri)),
            "a path, hf://ORGANISATION/NAME, or s3://BUCKET/PREFIX",
            "Of a page on the Hub give the name alone, ORGANISATION/NAME; download anything else and give its path.",
        )
    return LocalSource(what, uri, Path(rest), patterns)
