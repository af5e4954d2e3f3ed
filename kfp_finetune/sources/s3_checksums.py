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


def stated_checksum(size: int, head: Mapping[str, Any], first_part_bytes: Callable[[], int]) -> Checksum:
    """The best of what an answer to HEAD says about the content.

    An ETag says nothing where a key of the user's or of a key service encrypts the object.

    Args:
        size: Of the object.
        head: The answer, asked with ChecksumMode=ENABLED.
        first_part_bytes: Asks for the size of the first part that the object was uploaded in.
    """
    for field, algorithm in STATED.items():
        value, _, parts = str(head.get(field, "")).partition("-")
        if found := _of(algorithm, _hexadecimal(value), parts, size, first_part_bytes):
            return found
    if head.get("SSECustomerAlgorithm") or head.get("ServerSideEncryption", "AES256") != "AES256":
        return Checksum()
    value, _, parts = str(head.get("ETag", "")).strip('"').partition("-")
    return _of("md5", value if len(value) == MD5_DIGITS else "", parts, size, first_part_bytes) or Checksum()


def _of(algorithm: str, value: str, parts: str, size: int, first_part_bytes: Callable[[], int]) -> Checksum | None:
    if not value or not parts:
        return Checksum(algorithm, value) if value else None
    part_bytes = first_part_bytes()
    is_part = parts.isdecimal() and part_bytes and -(-size // part_bytes) == int(parts)
    return Checksum(algorithm, value, part_bytes) if is_part else None


def _hexadecimal(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""
