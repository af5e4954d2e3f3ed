"""Files that this machine, or a mounted volume, already has."""

import glob
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from kfp_finetune.errors import UserError, refuse
from kfp_finetune.manifests import MANIFEST_NAME, FileEntry, describe_files, sha256_of
from kfp_finetune.publishing import SourceChanged
from kfp_finetune.sources.patterns import Patterns, no_match, split_pattern
from kfp_finetune.sources.redaction import redact


@dataclass(frozen=True)
class LocalSource:
    """A file, a directory of files, or the files that a shell pattern such as /data/part-*.jsonl matches.

    Hidden files and directories are left out, and so is the manifest of a published directory. Links to files are
    followed, links to directories are not, and a link to nothing is a file that cannot be read.

    Args:
        what: Name of the parameter that asked for it, for messages.
        uri: As the user wrote it.
        root: The file, directory or pattern; what exists under the very name is no pattern.
        patterns: Which files of a directory or pattern are wanted; a single file is always wanted.
    """

    what: str
    uri: str
    root: Path
    patterns: Patterns

    def revision(self) -> str:
        """The SHA-256 over names and contents: the same bytes elsewhere are the same revision.

        Raises:
            UserError: If there is no wanted file, or one cannot be read.
        """
        return self._revision

    @property
    def origin(self) -> str:
        """Empty: the revision is made from the contents, and equal contents elsewhere are the same."""
        return ""

    def files(self) -> Mapping[str, int]:
        """The wanted files' names and sizes; see `kfp_finetune.sources.source.Source`."""
        try:
            return {name: file.stat().st_size for name, file in self._files.items()}
        except OSError as error:
            raise self._unreadable(error) from error

    def fetch(self, target: Path, on_bytes: Callable[[int, int], None]) -> tuple[FileEntry, ...]:
        """Copies every wanted file; see `kfp_finetune.sources.source.Source`."""
        total = sum(file.stat().st_size for file in self._files.values())
        done = 0
        for name, file in self._files.items():
            destination = target / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, destination)
            done += destination.stat().st_size
            on_bytes(done, total)
        there = [file for file in describe_files(target) if file.path in self._files]
        files = tuple(replace(file, verified="sha256") for file in there)
        if _digest((file.path, file.sha256) for file in files) != self._revision:
            raise refuse(
                self.what,
                f"{self.uri}, whose files changed while they were fetched",
                "files that stay as they are",
                "Run again once nothing writes there.",
                SourceChanged,
            )
        return files

    @cached_property
    def _revision(self) -> str:
        try:
            return _digest((name, sha256_of(file)) for name, file in self._files.items())
        except OSError as error:
            raise self._unreadable(error) from error

    @cached_property
    def _files(self) -> dict[str, Path]:
        try:
            return self._find()
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> UserError:
        return refuse(
            self.what, f"{self.uri}: {error}", "files that this user can read", "Check the files and their permissions."
        )

    def _find(self) -> dict[str, Path]:
        above = Path(split_pattern(str(self.root))[0] or self.root.anchor)
        if not self.root.exists() and above != self.root and above.is_dir():
            return self._matches(above)
        if not self.root.exists():
            raise refuse(
                self.what,
                redact(self.uri),
                "a file or directory that exists",
                "Check the path for a typo; what is on the Hub begins with hf://, what is in S3 with s3://.",
            )
        if self.root.is_file():
            return {self.root.name: self.root}
        found: dict[str, Path] = {}
        for directory, subdirectories, names in os.walk(self.root, onerror=_raise):
            subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
            for path in (Path(directory, name) for name in names if not name.startswith(".")):
                relative = path.relative_to(self.root).as_posix()
                is_file = path.is_file() or not path.exists()
                if is_file and relative != MANIFEST_NAME and self.patterns.wants(relative):
                    found[relative] = path
        if not found:
            raise self._nothing()
        return dict(sorted(found.items()))

    def _matches(self, above: Path) -> dict[str, Path]:
        paths = [Path(name) for name in glob.glob(str(self.root), recursive=True)]
        names = {path.relative_to(above).as_posix(): path for path in paths if path.is_file() or path.is_symlink()}
        files = {name: path for name, path in names.items() if not path.is_dir()}
        if not files:
            raise no_match(self.what, self.uri, (name for name in os.listdir(above) if not name.startswith(".")))
        found = {name: path for name, path in files.items() if self.patterns.wants(name)}
        if not found:
            raise self._nothing()
        return dict(sorted(found.items()))

    def _nothing(self) -> UserError:
        return refuse(
            self.what,
            f"{self.uri}, which has no file of the wanted kinds",
            f"a directory with files like {', '.join(self.patterns.allow)}",
            "Check the path, or the files' endings.",
        )


def _raise(error: OSError) -> None:
    raise error


def _digest(files: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"{name}\0{digest}\n" for name, digest in sorted(files))
    return f"sha256:{hashlib.sha256(os.fsencode(lines)).hexdigest()}"
