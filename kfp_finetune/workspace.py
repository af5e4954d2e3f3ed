"""The only code that knows where things lie on the volume, and how they get there whole.

A directory appears by atomic rename, complete and with its manifest. Whoever is killed while writing leaves only a
temporary directory, which the next writer of the same thing removes.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kfp_finetune.errors import UserError, refuse

MOUNT_PATH = "/workspace"
"""Where the volume is mounted in every step's pod."""

MANIFEST_NAME = "MANIFEST.json"
REPORT_NAME = "report.html"
"""The page on a whole run: evaluation leaves it in the training's directory, and the export takes it along."""

FETCH_REPORT_NAME = ".report.html"
"""The page on a dataset or model; hidden, so that who copies a model's files does not take it for one of them."""

INDEX_NAME = "model.safetensors.index.json"
"""transformers' name for the list of which file holds which tensor."""

PARTIAL_PREFIX = ".part-"
"""Of the hidden directories in which `resuming` collects."""

TEMPORARY_PREFIX = ".tmp-"
"""Of the hidden directories that are to appear or to go; the key and a dash and a random part follow."""

FLUSHES = 8
"""Files that are flushed at once; a volume writes them together."""

LOCK_WAIT_SECONDS = 86_400.0
SERIES_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True)
class FileEntry:
    """One file of a published directory.

    Args:
        path: Relative to the directory, with forward slashes.
        size: In bytes.
        sha256: Hexadecimal digest of the content.
    """

    path: str
    size: int
    sha256: str


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
    return Workspace(path)


def _unwritable(path: Path, error: OSError) -> UserError:
    there = next(place for place in (path, *path.parents) if os.path.exists(place))
    stat = there.stat()
    return refuse(
        "workspace",
        f"{path}, where this step (uid {os.getuid()}, gid {os.getgid()}) cannot write: {error.strerror}; "
        f"{there} is owned by {stat.st_uid}:{stat.st_gid} with mode {stat.st_mode & 0o7777:o}",
        "a directory that the step's user or group may write to",
        "Make the volume's root group-writable for the step's gid, or choose another volume.",
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


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(directory: Path) -> list[Path]:
    """Every regular file below a directory, sorted by name, without the directory's manifest."""
    return sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST_NAME)


def describe_files(directory: Path) -> tuple[FileEntry, ...]:
    """Name, size and digest of every file below a directory; several are read at once."""

    def describe(path: Path) -> FileEntry:
        return FileEntry(path.relative_to(directory).as_posix(), path.stat().st_size, sha256_of(path))

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return tuple(pool.map(describe, files_below(directory)))


def is_intact(directory: Path, manifest: Manifest) -> bool:
    """Whether a published directory still has its files, by name and size."""
    present = {path.relative_to(directory).as_posix(): path.stat().st_size for path in files_below(directory)}
    return present == {file.path: file.size for file in manifest.files}


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a published directory, or None if it has none that is readable."""
    try:
        return Manifest.from_json((directory / MANIFEST_NAME).read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def locked(path: Path, work: str, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Lets one process at a time do a piece of work; the others say that they wait.

    Args:
        path: The lock's file, in a directory that exists.
        work: What is to be done, in a few words.
        wait_seconds: Longest wait for another process. Default: a day.

    Raises:
        UserError: If another process still holds the lock after that.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process that does the same: {work}", flush=True)
        try:
            lock.acquire(timeout=wait_seconds)
        except Timeout as error:
            raise refuse(
                "workspace",
                f"{path}, which another process has held for more than {wait_seconds:g} s ({work})",
                "one process at a time",
                "Wait for the other run, or stop it.",
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def exclusive(target: Path, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Lets one process at a time publish a directory; the others wait.

    Args:
        target: The directory that is to appear; it need not exist.
        wait_seconds: Longest wait for another process. Default: a day.

    Raises:
        UserError: If another process still works on it after that.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent / f".{target.name}.lock", f"publish {target.name}", wait_seconds):
        for leftover in target.parent.glob(f"{TEMPORARY_PREFIX}{target.name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


@contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """Gives a temporary directory that becomes `target`, whole, when the body ends without an error.

    The caller holds `exclusive(target)` where two processes could publish the same thing.

    Args:
        target: The directory that is to appear; what it held before is replaced.

    Yields:
        An empty directory on the same volume.

    Raises:
        UserError: If the volume is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = _beside(target)
    staging.mkdir()
    try:
        with _clear_when_full(target.parent):
            yield staging
            _put_in_place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class Interrupted(UserError):
    """The source or the way to it failed, and may not fail the next time: what has come is worth keeping."""


class SourceChanged(UserError):
    """The source is not what it was when the fetch began: what has come is of no use."""


@contextmanager
def resuming(target: Path) -> Iterator[Path]:
    """Like `publishing`, but finds again what an attempt left that was killed or crashed, or ended with `Interrupted`.

    The caller holds `exclusive(target)`.

    Args:
        target: The directory that is to appear; what it held before is replaced.

    Yields:
        A directory on the same volume, with what the last attempt left in it. After another `UserError` it is removed.

    Raises:
        UserError: If the volume is full.
    """
    staging = partial_directory(target)
    staging.mkdir(parents=True, exist_ok=True)
    try:
        with _clear_when_full(target.parent):
            yield staging
            _put_in_place(staging, target)
    except Interrupted:
        if not any(path.is_file() and path.stat().st_size for path in staging.rglob("*")):
            shutil.rmtree(staging, ignore_errors=True)
        raise
    except UserError:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def partial_directory(target: Path) -> Path:
    """Where `resuming` collects what is to become a directory."""
    return target.parent / f"{PARTIAL_PREFIX}{target.name}"


def discard(target: Path) -> None:
    """Removes a published directory; who looks meanwhile sees all of it or none. The caller holds `exclusive`."""
    doomed = _beside(target)
    target.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _beside(target: Path) -> Path:
    return target.parent / f"{TEMPORARY_PREFIX}{target.name}-{uuid.uuid4().hex[:8]}"


def _put_in_place(staging: Path, target: Path) -> None:
    sync(staging)
    replaced = _beside(target)
    if target.exists():
        target.rename(replaced)
    staging.rename(target)
    _flush(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def _clear_when_full(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise refuse(
            "workspace",
            f"{directory}, which is full: {shutil.disk_usage(directory).free:,} bytes are free",
            "room for the whole directory",
            "Free space on the volume or enlarge it, then run again.",
        ) from error


def sync(directory: Path) -> None:
    """Flushes every file below a directory to the volume, so that a rename cannot overtake the bytes."""
    with ThreadPoolExecutor(max_workers=FLUSHES) as pool:
        for _ in pool.map(_flush, [*directory.rglob("*"), directory]):
            pass


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Writes a small file so that a reader sees the old text or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
