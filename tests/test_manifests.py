"""Manifests: what was written is read, what is damaged is none, and a directory is compared with its own."""

import json
from pathlib import Path

import pytest

from kfp_finetune.manifests import MANIFEST_NAME, FileEntry, Manifest, describe_files, is_intact, read_manifest

MANIFEST = Manifest(
    kind="dataset",
    key="0123456789abcdef",
    source="/somewhere/größe",
    revision="sha256:00",
    path="datasets/0123456789abcdef",
    files=(FileEntry("a/rows.jsonl", 3, "ff"), FileEntry("b.jsonl", 4, "ee")),
    facts={"format": "json", "splits": {"train": 2}, "empty": None},
)


def test_a_manifest_round_trips(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(MANIFEST.to_json())
    assert read_manifest(tmp_path) == MANIFEST
    assert MANIFEST.size == 7


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'"text"',
        b"{}",
        b'{"files": []}',
        b'{"files": null}',
        MANIFEST.to_json()[:-40].encode(),
        json.dumps(json.loads(MANIFEST.to_json()) | {"unknown": 1}).encode(),
        json.dumps(json.loads(MANIFEST.to_json()) | {"files": ["a"]}).encode(),
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_manifest_is_none(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(damaged)
    assert read_manifest(tmp_path) is None


def test_an_absent_manifest_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "absent") is None


def test_files_are_described_by_content_and_only_the_directorys_own_manifest_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in (MANIFEST_NAME, f"sub/{MANIFEST_NAME}", "abc"):
        (tmp_path / name).write_text("abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert describe_files(tmp_path) == (FileEntry("abc", 3, digest), FileEntry(f"sub/{MANIFEST_NAME}", 3, digest))


def test_a_directory_that_lost_a_file_or_a_byte_is_not_intact(tmp_path: Path):
    (tmp_path / "a").write_text("1234")
    (tmp_path / "b").write_text("5")
    manifest = Manifest("dataset", "key", "source", "revision", "datasets/key", describe_files(tmp_path))
    assert is_intact(tmp_path, manifest)
    (tmp_path / "a").write_text("123")
    assert not is_intact(tmp_path, manifest)
    (tmp_path / "a").write_text("1234")
    (tmp_path / "b").unlink()
    assert not is_intact(tmp_path, manifest)
