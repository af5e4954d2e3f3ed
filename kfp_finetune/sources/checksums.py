"""What a server says about a file's content, and how to find the same from its bytes."""

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

READ_BYTES = 2**20


class Digest(Protocol):
    """A digest in the making."""

    def update(self, data: bytes, /) -> None:
        """Takes the next bytes."""

    def hexdigest(self) -> str:
        """The digest of all bytes so far, hexadecimal."""


@dataclass(frozen=True)
class Checksum:
    """A file's content as a server describes it.

    Args:
        algorithm: "sha256", "git" (a git blob's SHA-1), one of `CRCS`, another of `hashlib`, or "none".
        value: Hexadecimal digest.
        part_bytes: If not 0, the value is the digest of the digests of parts of this size, as S3 makes it.
    """

    algorithm: str = "none"
    value: str = ""
    part_bytes: int = 0

    @property
    def title(self) -> str:
        """What a file is compared with, in a few words."""
        name = {"none": "size alone", "git": "git sha1"}.get(self.algorithm, self.algorithm)
        return f"{name} of parts" if self.part_bytes else name

    def begin(self, size: int) -> Digest:
        """A digest of this algorithm for a file of so many bytes.

        Raises:
            ValueError: If the algorithm is "none".
        """
        if self.part_bytes:
            return _OfParts(self._plain, self.part_bytes)
        if self.algorithm == "git":
            return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        return self._plain()

    def is_of(self, path: Path) -> bool:
        """Whether a file has this checksum; every file has "none"."""
        if self.algorithm == "none":
            return True
        digest = self.begin(path.stat().st_size)
        with path.open("rb") as content:
            while data := content.read(READ_BYTES):
                digest.update(data)
        return digest.hexdigest() == self.value

    def _plain(self) -> Digest:
        if self.algorithm in CRCS:
            return _Crc(*CRCS[self.algorithm])
        return hashlib.new(self.algorithm, usedforsecurity=False)


def _crc32c(data: bytes, before: int) -> int:
    from awscrt.checksums import crc32c

    return crc32c(data, before)


def _crc64nvme(data: bytes, before: int) -> int:
    from awscrt.checksums import crc64nvme

    return crc64nvme(data, before)


CRCS: dict[str, tuple[Callable[[bytes, int], int], int]] = {
    "crc32": (zlib.crc32, 8),
    "crc32c": (_crc32c, 8),
    "crc64nvme": (_crc64nvme, 16),
}
"""Each cyclic redundancy check that S3 knows, and its hexadecimal digits."""


class _Crc:
    def __init__(self, function: Callable[[bytes, int], int], digits: int):
        self._function = function
        self._digits = digits
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._function(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:0{self._digits}x}"


class _OfParts:
    """S3's ETag or checksum of an object that was uploaded in parts, without its number of parts."""

    def __init__(self, begin: Callable[[], Digest], part_bytes: int):
        self._begin = begin
        self._part_bytes = part_bytes
        self._part = begin()
        self._left = part_bytes
        self._digests = b""

    def update(self, data: bytes, /) -> None:
        view = memoryview(data)
        while view:
            if not self._left:
                self._digests += bytes.fromhex(self._part.hexdigest())
                self._part, self._left = self._begin(), self._part_bytes
            taken = view[: self._left]
            self._part.update(taken)  # type: ignore[arg-type]
            self._left -= len(taken)
            view = view[len(taken) :]

    def hexdigest(self) -> str:
        whole = self._begin()
        whole.update(self._digests + bytes.fromhex(self._part.hexdigest()))
        return whole.hexdigest()
