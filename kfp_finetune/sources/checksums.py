"""What a server says about a file's content, and how to find the same from its bytes."""

import hashlib
from dataclasses import dataclass
from typing import Protocol


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
        algorithm: "sha256", "git" (a git blob's SHA-1), "md5", "multipart" (S3's MD5 of the parts' MD5s), or "none".
        value: Hexadecimal digest.
        part_bytes: Of "multipart": the size of every part but the last.
    """

    algorithm: str = "none"
    value: str = ""
    part_bytes: int = 0

    def begin(self, size: int) -> Digest:
        """A digest of this algorithm for a file of so many bytes.

        Raises:
            ValueError: If the algorithm is "none".
        """
        if self.algorithm == "git":
            return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        if self.algorithm == "multipart":
            return _Multipart(self.part_bytes)
        return hashlib.new(self.algorithm, usedforsecurity=False)


class _Multipart:
    """S3's ETag of an object that was uploaded in parts, without its number of parts."""

    def __init__(self, part_bytes: int):
        self._part_bytes = part_bytes
        self._part = hashlib.md5(usedforsecurity=False)
        self._left = part_bytes
        self._whole = hashlib.md5(usedforsecurity=False)

    def update(self, data: bytes, /) -> None:
        view = memoryview(data)
        while view:
            if not self._left:
                self._whole.update(self._part.digest())
                self._part, self._left = hashlib.md5(usedforsecurity=False), self._part_bytes
            taken = view[: self._left]
            self._part.update(taken)
            self._left -= len(taken)
            view = view[len(taken) :]

    def hexdigest(self) -> str:
        whole = self._whole.copy()
        whole.update(self._part.digest())
        return whole.hexdigest()
