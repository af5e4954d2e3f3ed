"""What S3 says about an object's content: a checksum that was kept with it, or the ETag where that is one."""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from kfp_finetune.sources.checksums import Checksum

STATED = {
    "ChecksumSHA256": "sha256",
    "ChecksumCRC64NVME": "crc64nvme",
    "ChecksumSHA1": "sha1",
    "ChecksumCRC32C": "crc32c",
    "ChecksumCRC32": "crc32",
}
"""Fields of a HEAD's answer, the most telling first."""

MD5_DIGITS = 32


def etag_checksum(etag: str) -> Checksum | None:
    """The MD5 that an ETag is, most of the time; None if it cannot be the MD5 of the whole object."""
    return Checksum("md5", etag) if len(etag) == MD5_DIGITS else None


def stated_checksum(size: int, head: Mapping[str, Any], part_bytes: Callable[[int], int]) -> Checksum:
    """The best of what an answer to HEAD says about the content.

    An ETag says nothing where a key of the user's or of a key service encrypts the object.

    Args:
        size: Of the object.
        head: The answer, asked with ChecksumMode=ENABLED.
        part_bytes: Asks for the size of a part that the object was uploaded in, by its number from 1.
    """
    for field, algorithm in STATED.items():
        value, _, parts = str(head.get(field, "")).partition("-")
        if found := _of(algorithm, _hexadecimal(value), parts, size, part_bytes):
            return found
    if head.get("SSECustomerAlgorithm") or head.get("ServerSideEncryption", "AES256") != "AES256":
        return Checksum()
    value, _, parts = str(head.get("ETag", "")).strip('"').partition("-")
    return _of("md5", value if len(value) == MD5_DIGITS else "", parts, size, part_bytes) or Checksum()


def _of(algorithm: str, value: str, parts: str, size: int, part_bytes: Callable[[int], int]) -> Checksum | None:
    """A checksum of the whole, or of parts that are all of one size but the last; None for any other parts."""
    if not value or not parts:
        return Checksum(algorithm, value) if value else None
    if not parts.isdecimal() or int(parts) < 1:
        return None
    first, last = part_bytes(1), part_bytes(int(parts))
    is_even = 0 < last <= first and (int(parts) - 1) * first + last == size
    return Checksum(algorithm, value, first) if is_even else None


def _hexadecimal(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""
