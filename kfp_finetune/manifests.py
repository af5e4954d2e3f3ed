"""What a published directory holds: its manifest, and how files are described and compared with it."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MANIFEST_NAME = "MANIFEST.json"


@dataclass(frozen=True)
class FileEntry:
    """One file of a published directory.

    Args:
        path: Relative to the directory, with forward slashes.
        size: In bytes.
        sha256: Hexadecimal digest of the content.
        verified: What the source said of the content and was compared with it, such as "sha256", "git sha1", "md5",
            "crc64nvme", "md5 of parts" or "size alone"; empty if the file was made here.
    """

    path: str
    size: int
    sha256: str
    verified: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a published directory holds and where it came from; lies in it as MANIFEST.json.

    Args:
        kind: "dataset", "model" or "export".
        key: The directory's name, made from what it is.
        source: Where it was asked for, as the user wrote it.
        revision: What was found there, as exactly as the source can say it.
        path: Relative to the workspace's root.
        files: Every file but the manifest.
        facts: What a later step or a reader wants to know without opening the files; values are JSON scalars.
    """

    kind: str
    key: str
    source: str
    revision: str
    path: str
    files: tuple[FileEntry, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def to_json(self) -> str:
        """The manifest as indented JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Reads what `to_json` wrote.

        Raises:
            ValueError: If the text is not such JSON.
        """
        try:
            fields = json.loads(text)
            return cls(**fields | {"files": tuple(FileEntry(**file) for file in fields["files"])})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a manifest: {error}") from error


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a published directory, or None if it has none that is readable."""
    try:
        return Manifest.from_json((directory / MANIFEST_NAME).read_text())
    except (OSError, ValueError):
        return None


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(directory: Path) -> list[Path]:
    """Every regular file below a directory, sorted by name, without the directory's manifest."""
    return sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST_NAME)


def describe_files(directory: Path, known: Collection[FileEntry] = ()) -> tuple[FileEntry, ...]:
    """Name, size and digest of every file below a directory; several are read at once.

    Args:
        directory: The directory.
        known: What was described before and is not read again.
    """
    before = {entry.path: entry for entry in known}

    def describe(path: Path) -> FileEntry:
        name = path.relative_to(directory).as_posix()
        return before.get(name) or FileEntry(name, path.stat().st_size, sha256_of(path))

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return tuple(pool.map(describe, files_below(directory)))


def is_intact(directory: Path, manifest: Manifest) -> bool:
    """Whether a published directory still has its files, by name and size."""
    present = {path.relative_to(directory).as_posix(): path.stat().st_size for path in files_below(directory)}
    return present == {file.path: file.size for file in manifest.files}
