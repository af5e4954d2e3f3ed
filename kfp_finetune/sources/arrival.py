"""One file on its way from a server: written part by part, and continued by a later process."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kfp_finetune.sources.checksums import READ_BYTES, Checksum

PART_BYTES = 32 * 2**20
"""Larger files come in parts of this size; a kill loses at most the parts that were on their way."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as a server lists it.

    Args:
        path: Where it is to lie, relative to the source, with forward slashes.
        size: In bytes.
        address: The server's own name for it.
        checksum: What the server says about its content.
        xet_hash: Its name in the Hub's store of chunks; empty if it is not there.
    """

    path: str
    size: int
    address: str
    checksum: Checksum
    xet_hash: str = ""


Read = Callable[[RemoteFile, int, int], Iterable[bytes]]
"""Gives the bytes of a file from a position to before another; raises `Transient` if another attempt is worth it."""


class Arrival:
    """The bytes of a file that have come, and their digests in order.

    A part that has come is on the disk before the journal says so: the journal can be believed after a kill.

    Args:
        file: What is to come.
        directory: Holds the bytes and the journal.
    """

    def __init__(self, file: RemoteFile, directory: Path):
        self.file = file
        name = hashlib.sha256(repr((file, PART_BYTES)).encode()).hexdigest()[:32]
        self.path = directory / f"{name}.bytes"
        self._journal = directory / f"{name}.parts"
        self._parts = range(max(1, -(-file.size // PART_BYTES)))
        self._there = self._recall()
        self._digested = 0
        self._sha256 = hashlib.sha256()
        is_other = file.checksum.algorithm not in ("none", "sha256") or file.checksum.part_bytes
        self._theirs = file.checksum.begin(file.size) if is_other else None
        self._lock = threading.Lock()
        self._digesting = threading.Lock()

    def missing(self) -> list[int]:
        """The parts that are still to come."""
        return [part for part in self._parts if part not in self._there]

    def bounds(self, part: int) -> tuple[int, int]:
        """Where a part starts, and where the next one does."""
        return part * PART_BYTES, min((part + 1) * PART_BYTES, self.file.size)

    def write(self, position: int, chunks: Iterable[bytes], on_chunk: Callable[[int], None]) -> None:
        """Writes bytes where they belong.

        Args:
            position: Of the first byte.
            chunks: The bytes.
            on_chunk: Called with the length of each chunk once it is written.
        """
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            for chunk in chunks:
                os.pwrite(descriptor, chunk, position)
                position += len(chunk)
                on_chunk(len(chunk))
            if len(self._parts) > 1:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def note(self, part: int) -> bool:
        """Takes down that a part is there, and digests what there is without a gap.

        Returns:
            Whether it was the last one.
        """
        with self._lock:
            if len(self._parts) > 1:
                with self._journal.open("a") as journal:
                    journal.write(f"{part}\n")
            self._there.add(part)
            last = len(self._there) == len(self._parts)
        if self._digesting.acquire(blocking=last):
            try:
                self._digest()
            finally:
                self._digesting.release()
        return last

    def digests(self) -> tuple[str, str]:
        """The SHA-256 of the whole file, and the digest to compare with what the server says."""
        self._digest()
        sha256 = self._sha256.hexdigest()
        return sha256, self._theirs.hexdigest() if self._theirs else sha256

    def forget(self) -> None:
        """Removes the bytes and the journal."""
        self.path.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def _recall(self) -> set[int]:
        if not self._journal.exists() or not self.path.exists():
            self.forget()
            return set()
        whole_lines = self._journal.read_text().rpartition("\n")[0].splitlines()
        return {int(line) for line in whole_lines if line.isdecimal()} & set(self._parts)

    def _digest(self) -> None:
        with self.path.open("rb") as file:
            while self._digested < len(self._parts) and self._digested in self._there:
                start, stop = self.bounds(self._digested)
                file.seek(start)
                while start < stop:
                    data = file.read(min(READ_BYTES, stop - start))
                    if not data:
                        return
                    self._sha256.update(data)
                    if self._theirs:
                        self._theirs.update(data)
                    start += len(data)
                self._digested += 1
