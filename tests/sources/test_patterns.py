"""Patterns as the Hub reads them."""

import pytest

from kfp_finetune.sources.patterns import Patterns, matches_glob, split_pattern


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("data/pretrain-0.parquet", "data/**/train-*", False),
        ("data/train-0.parquet", "data/**/train-*", True),
        ("data/en/x/train-0.parquet", "data/**/train-*", True),
        ("data/en/pretrain-0.parquet", "data/**/train-*", False),
        ("data/en/a.parquet", "data/*", False),
        ("data/a.parquet", "data/*", True),
        ("data/en/a.parquet", "data/**", True),
        ("a.parquet", "**/*.parquet", True),
        ("data/en/a.parquet", "**/*.parquet", True),
        ("database/a.parquet", "data/**", False),
        ("data/a/b/c/d", "data/**/b/**/d", True),
        ("data/a/c/d", "data/**/b/**/d", False),
    ],
)
def test_a_star_stays_in_its_folder_and_two_stand_for_any_folders(path: str, pattern: str, expected: bool) -> None:
    assert matches_glob(path, pattern) is expected


@pytest.mark.parametrize(
    ("path", "folder", "pattern"),
    [
        ("", "", ""),
        ("data/en", "data/en", ""),
        ("data/en/", "data/en/", ""),
        ("*.parquet", "", "*.parquet"),
        ("data/en/*.parquet", "data/en", "*.parquet"),
        ("data/*/train-?.parquet", "data", "*/train-?.parquet"),
        ("data/[ab]/", "data", "[ab]"),
        ("**/a.parquet", "", "**/a.parquet"),
    ],
)
def test_a_pattern_begins_after_the_last_folder_without_a_wildcard(path: str, folder: str, pattern: str) -> None:
    assert split_pattern(path) == (folder, pattern)


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("model.bin", "*", False),
        ("model.BIN", "*", False),
        ("model.pt", "model.*", False),
        ("model.pth", "*.p*", False),
        ("model.pkl", "*l", False),
        ("model.bin", "*.bin", True),
        ("model.pt", "model.pt", True),
        ("model.pth", "*.pt*", False),
        ("robin", "*", True),
    ],
)
def test_a_pickle_must_be_asked_for_by_its_ending(path: str, pattern: str, expected: bool) -> None:
    assert Patterns(allow=("*.json", pattern)).wants(path) is expected
