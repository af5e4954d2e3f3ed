"""How a directory or a small file gets to the volume whole, and by one process at a time.

A directory appears by atomic rename, complete and with its manifest. Whoever is killed while writing leaves only a
temporary directory, which the next writer of the same thing removes.
"""

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from filecmp import cmp
from pathlib import Path

from filelock import FileLock, Timeout

from kfp_finetune.errors import UserError, refuse
from kfp_finetune.manifests import MANIFEST_NAME

PARTIAL_PREFIX = ".part-"
"""Of the hidden directories in which `resuming` collects."""

TEMPORARY_PREFIX = ".tmp-"
"""Of the hidden directories that are to appear or to go; the key and a dash and a random part follow."""

FLUSHES = 8
"""Files that are flushed at once; a volume writes them together."""

LOCK_WAIT_SECONDS = 86_400.0


class Interrupted(UserError):
    """The source or the way to it failed, and may not fail the next time: what has come is worth keeping."""


class SourceChanged(UserError):
    """The source is not what it was when the fetch began: what has come is of no use."""


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
            put_in_place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def resuming(target: Path) -> Iterator[Path]:
    """Like `publishing`, but finds again what an attempt left that was killed or crashed, or ended with `Interrupted`.

    Where the directory is there already, it stays, since others may be reading it: only files that differ are replaced,
    each by one rename. The caller holds `exclusive(target)`, and the directory's name says what its files hold.

    Args:
        target: The directory that is to appear, or to be mended.

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
            if target.is_dir():
                _mend(staging, target)
            else:
                put_in_place(staging, target)
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


def put_in_place(staging: Path, target: Path) -> None:
    """Makes a directory appear by one rename, once every byte of it is on the volume.

    Args:
        staging: On the same volume.
        target: What it becomes; what that held before is replaced.
    """
    _open_up(staging)
    sync(staging)
    replaced = _beside(target)
    if target.exists():
        target.rename(replaced)
    staging.rename(target)
    _flush(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _open_up(staging: Path) -> None:
    """Lets files be read as the umask says: safetensors and tempfile make theirs for their owner alone.

    A file that has other names too belongs to somebody else and is left alone.
    """
    mode = 0o666 & ~_umask()
    for path in staging.rglob("*"):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.getuid():
            path.chmod(stat.S_IMODE(found.st_mode) | mode)


def _umask() -> int:
    """The umask, which can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _mend(staging: Path, target: Path) -> None:
    """Makes a published directory hold what another one does, and leaves alone each file that is right.

    The manifest comes last: whoever is killed before leaves it true of no more files than before.
    """
    _open_up(staging)
    sync(staging)
    right = {path.relative_to(staging) for path in staging.rglob("*")}
    for path in sorted(target.rglob("*"), reverse=True):
        relative = path.relative_to(target)
        if relative not in right or path.is_symlink() or path.is_dir() != (staging / relative).is_dir():
            _remove(path)
    for relative in sorted(right, key=lambda path: (path == Path(MANIFEST_NAME), path)):
        if (staging / relative).is_dir():
            (target / relative).mkdir(exist_ok=True)
        elif not (target / relative).exists() or not cmp(staging / relative, target / relative, shallow=False):
            (staging / relative).replace(target / relative)
    for folder in {target, *(target / relative.parent for relative in right)}:
        _flush(folder)
    shutil.rmtree(staging, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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


def link_or_copy(source: Path, target: Path) -> None:
    """Makes a second name for a file, or a copy where the volume has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
