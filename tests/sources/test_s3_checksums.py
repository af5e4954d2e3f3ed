"""What an S3 server says of an object's content, and what follows from it."""

import hashlib

import pytest

from kfp_finetune.sources.s3_checksums import stated_checksum

ETAG = hashlib.md5(b"").hexdigest()


@pytest.mark.parametrize(
    ("size", "sizes", "verified"),
    [
        (25, [10, 10, 5], True),
        (30, [10, 10, 10], True),
        (10, [10], True),
        (25, [10, 8, 7], False),
        (25, [8, 10, 7], False),
        (25, [5, 10, 10], False),
    ],
)
def test_an_object_in_parts_is_verified_by_its_etag_only_where_they_are_alike(size, sizes, verified):
    checksum = stated_checksum(size, {"ETag": f'"{ETAG}-{len(sizes)}"'}, lambda number: sizes[number - 1])
    assert (checksum.part_bytes, checksum.value) == ((sizes[0], ETAG) if verified else (0, ""))


@pytest.mark.parametrize("etag", ["", '"x"', f'"{ETAG}-0"', f'"{ETAG}-x"'])
def test_an_etag_that_is_no_digest_verifies_nothing(etag):
    assert stated_checksum(25, {"ETag": etag}, lambda number: 10).value == ""
