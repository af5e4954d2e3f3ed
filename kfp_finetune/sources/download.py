"""Brings files from a server to disk: several at once, large ones in parts, continued after a kill, verified."""

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from kfp_finetune.errors import refuse
from kfp_finetune.manifests import FileEntry
from kfp_finetune.publishing import Interrupted
from kfp_finetune.sources.arrival import Arrival, Read, RemoteFile
from kfp_finetune.sources.checksums import READ_BYTES, Checksum, Digest
from kfp_finetune.sources.retries import Transient, patiently

WORKERS = 8
PASSES = 3
"""How often a file is fetched that is not what the server described."""

PARTIAL_NAME = ".partial"


class _Stopped(Exception):
    """Another thread has failed; this one need not go on."""


class _Progress:
    """Counts bytes from several threads, and passes the news that one of them failed.

    Args:
        total: Bytes in all.
        on_bytes: Called with the bytes done so far and the bytes in all.
    """

    def __init__(self, total: int, on_bytes: Callable[[int, int], None]):
        self._total = total
        self._done = 0
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def add(self, count: int) -> None:
        if self.stop.is_set():
            raise _Stopped
        with self._lock:
            self._done += count
            self._on_bytes(min(self._done, self._total), self._total)

    def pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise _Stopped


@dataclass(frozen=True)
class Remote:
    """A server as `download` needs it.

    Args:
        what: Name of the parameter that asked for its files, for messages.
        uri: The source as the user wrote it.
        read: Reads from it.
        stated: What it says of a file's content when it is asked again, since the file differs from its checksum: the
            same, or what the content really is to be compared with.
    """

    what: str
    uri: str
    read: Read
    stated: Callable[[RemoteFile], Checksum] = lambda file: file.checksum


def download(
    remote: Remote, files: Sequence[RemoteFile], target: Path, on_bytes: Callable[[int, int], None]
) -> tuple[FileEntry, ...]:
    """Puts files below a directory, each by one rename once it is whole and what the server described.

    Args:
        remote: Where they are.
        files: What is to come; their names are safe.
        target: A directory, empty or with what an attempt left.
        on_bytes: Called with the bytes done so far and the bytes in all.

    Returns:
        The files, sorted by name.

    Raises:
        Interrupted: If the network or the server keeps failing, or keeps sending something else.
        UserError: What `remote.read` raises.
    """
    partial = target / PARTIAL_NAME
    partial.mkdir(exist_ok=True)
    progress = _Progress(sum(file.size for file in files), on_bytes)
    there: dict[str, FileEntry] = {}
    for _ in range(PASSES):
        pending = [file for file in files if file.path not in there]
        if not pending:
            break
        there |= {entry.path: entry for entry in _attempt(remote, pending, target, progress)}
    damaged = [file.path for file in files if file.path not in there]
    if damaged:
        raise refuse(
            remote.what,
            f"{remote.uri}, whose server or network sent {', '.join(damaged[:3])} damaged {PASSES} times",
            "files whose size and checksum are those of the listing",
            "Run again; if it stays so, the files at the source are damaged, or a proxy changes them.",
            Interrupted,
        )
    shutil.rmtree(partial)
    return tuple(sorted(there.values(), key=lambda entry: entry.path))


def _attempt(remote: Remote, files: Sequence[RemoteFile], target: Path, progress: _Progress) -> Iterator[FileEntry]:
    """Fetches files, and gives those that came as described."""

    def look(file: RemoteFile) -> FileEntry | None:
        entry = _already_there(remote, file, target)
        progress.add(file.size if entry else 0)
        return entry

    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            found = list(pool.map(look, files))
            yield from (entry for entry in found if entry)
            tasks: list[Future[FileEntry | None]] = []
            for file in (file for file, entry in zip(files, found, strict=True) if not entry):
                arrival = Arrival(file, target / PARTIAL_NAME)
                missing = arrival.missing()
                progress.add(file.size - sum(stop - start for start, stop in map(arrival.bounds, missing)))
                tasks += [pool.submit(_fetch_part, remote, arrival, part, target, progress) for part in missing]
                if not missing:
                    tasks.append(pool.submit(_settle, remote, arrival, target))
            for task in as_completed(tasks):
                if entry := task.result():
                    yield entry
        except BaseException:
            progress.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch_part(remote: Remote, arrival: Arrival, part: int, target: Path, progress: _Progress) -> FileEntry | None:
    """Brings a part, each attempt from where the last one ended; with the last part, the file."""
    position, stop = arrival.bounds(part)

    def advance(count: int) -> None:
        nonlocal position
        position += count
        progress.add(count)

    def go_on() -> None:
        asked = remote.read(arrival.file, position, stop) if position < stop else ()
        arrival.write(position, _exactly(asked, stop - position), advance)

    patiently(remote.what, remote.uri, go_on, progress.pause)
    return _settle(remote, arrival, target) if arrival.note(part) else None


def _exactly(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    """Passes on so many bytes, and takes fewer or more of them for a failure of the server."""
    left = count
    for chunk in chunks:
        if len(chunk) > left:
            raise Transient(f"the server sent more than the {count:,} bytes that were asked for")
        left -= len(chunk)
        yield chunk
    if left:
        raise Transient(f"the server closed the connection {left:,} bytes too early")


def _settle(remote: Remote, arrival: Arrival, target: Path) -> FileEntry | None:
    entry = _compare(remote, arrival.file, arrival.path, *arrival.digests())
    if entry is None:
        arrival.forget()
        return None
    destination = target / arrival.file.path
    destination.parent.mkdir(parents=True, exist_ok=True)
    arrival.path.rename(destination)
    return entry


def _compare(remote: Remote, file: RemoteFile, path: Path, sha256: str, found: str) -> FileEntry | None:
    """What a file is, or None if it is not what the server says.

    Args:
        remote: The server.
        file: What was asked for.
        path: Where the bytes are.
        sha256: Their digest.
        found: Their digest of the kind that `file.checksum` has.
    """
    checksum = file.checksum
    if path.stat().st_size != file.size:
        return None
    if checksum.algorithm != "none" and found != checksum.value:
        checksum = remote.stated(file)
        if checksum == file.checksum or not checksum.is_of(path):
            return None
    return FileEntry(file.path, file.size, sha256, checksum.title)


def _already_there(remote: Remote, file: RemoteFile, target: Path) -> FileEntry | None:
    """A file that an earlier attempt completed; one that is damaged is removed."""
    path = target / file.path
    if not path.is_file():
        return None
    digests: list[Digest] = [hashlib.sha256()]
    if file.checksum.algorithm != "none":
        digests.append(file.checksum.begin(file.size))
    with path.open("rb") as content:
        while data := content.read(READ_BYTES):
            for digest in digests:
                digest.update(data)
    entry = _compare(remote, file, path, digests[0].hexdigest(), digests[-1].hexdigest())
    if entry is None:
        path.unlink()
    return entry
