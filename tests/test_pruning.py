"""Old entries go, and none that something on the volume still needs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from children import killed_at
from filelock import FileLock

from kfp_finetune import pruning
from kfp_finetune.manifests import MANIFEST_NAME, FileEntry, Manifest, is_intact
from kfp_finetune.pruning import PARTIAL_SECONDS, REST_SECONDS, prune
from kfp_finetune.publishing import PARTIAL_PREFIX, exclusive
from kfp_finetune.workspace import Workspace

DAYS = 86_400


def publish(workspace: Workspace, key: str, days: float, source: str = "hf://org/model") -> Manifest:
    """An entry that was last used so many days ago."""
    directory = workspace.model(key)
    directory.mkdir(parents=True)
    (directory / "weights").write_text(key)
    files = (FileEntry("weights", len(key), "0"),)
    manifest = Manifest("model", key, source, "1", workspace.relative(directory), files)
    (directory / MANIFEST_NAME).write_text(manifest.to_json())
    used = time.time() - days * DAYS
    os.utime(directory / MANIFEST_NAME, (used, used))
    return manifest


def models(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in (workspace.root / "models").glob("*") if path.suffix != ".lock")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Four entries of one source, one of another."""
    workspace = Workspace(tmp_path)
    for key, days in ("aaaa", 9), ("bbbb", 5), ("cccc", 3):
        publish(workspace, key, days)
    publish(workspace, "other", 30, "hf://org/other")
    return workspace


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (0, ["aaaa", "bbbb", "cccc", "new", "other"]),
        (1, ["new", "other"]),
        (2, ["cccc", "new", "other"]),
        (9, ["aaaa", "bbbb", "cccc", "new", "other"]),
    ],
)
def test_the_entries_of_a_source_that_were_used_last_are_kept(workspace: Workspace, keep: int, left: list[str]) -> None:
    prune(workspace, publish(workspace, "new", 0), keep)
    assert models(workspace) == left


def test_what_was_just_found_is_kept_however_old_it_is(workspace: Workspace) -> None:
    found = Manifest.from_json((workspace.model("aaaa") / MANIFEST_NAME).read_text())
    prune(workspace, found, 1)
    assert models(workspace) == ["aaaa", "other"]


@pytest.mark.parametrize("place", ["trainings/t/plan.json", "trainings/t/config.yaml", "exports/e/MANIFEST.json"])
def test_what_a_training_or_an_export_names_is_kept(workspace: Workspace, place: str) -> None:
    (workspace.root / place).parent.mkdir(parents=True)
    (workspace.root / place).write_text('{"model": "models/aaaa"}')
    assert prune(workspace, publish(workspace, "new", 0), 1) == ["models/cccc", "models/bbbb"]
    assert models(workspace) == ["aaaa", "new", "other"]


@pytest.mark.parametrize("is_planned", [False, True])
def test_what_another_process_found_meanwhile_is_kept(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, is_planned: bool
) -> None:
    @contextmanager
    def after_a_reuse(target: Path, wait_seconds: float) -> Iterator[None]:
        if is_planned:
            (workspace.training("t")).mkdir(parents=True, exist_ok=True)
            (workspace.training("t") / "plan.json").write_text('["models/aaaa", "models/bbbb", "models/cccc"]')
        else:
            os.utime(target / MANIFEST_NAME)
        with exclusive(target, wait_seconds):
            yield

    monkeypatch.setattr(pruning, "exclusive", after_a_reuse)
    assert prune(workspace, publish(workspace, "new", 0), 1) == []
    assert models(workspace) == ["aaaa", "bbbb", "cccc", "new", "other"]


def test_what_was_used_within_a_day_is_kept(workspace: Workspace) -> None:
    publish(workspace, "young", REST_SECONDS / DAYS - 0.1)
    prune(workspace, publish(workspace, "new", 0), 1)
    assert models(workspace) == ["new", "other", "young"]


def test_what_another_process_works_on_is_kept(workspace: Workspace) -> None:
    with FileLock(workspace.root / "models" / ".aaaa.lock"):
        assert prune(workspace, publish(workspace, "new", 0), 1) == ["models/cccc", "models/bbbb"]


def test_what_a_killed_download_left_goes_after_a_week(workspace: Workspace) -> None:
    for name, age in ("old", PARTIAL_SECONDS + 60), ("young", PARTIAL_SECONDS - 60):
        directory = workspace.root / "models" / f"{PARTIAL_PREFIX}{name}"
        directory.mkdir()
        os.utime(directory, (time.time() - age, time.time() - age))
    prune(workspace, publish(workspace, "new", 0), 0)
    assert [name for name in models(workspace) if name.startswith(".")] == [".part-young"]


def test_an_entry_is_whole_or_gone_when_pruning_is_killed(tmp_path: Path) -> None:
    for moment in range(1, 30):
        workspace = Workspace(tmp_path / str(moment))
        old = publish(workspace, "aaaa", 9)
        new = publish(workspace, "new", 0)
        was_killed = killed_at(moment, lambda workspace=workspace, new=new: prune(workspace, new, 1))
        directory = workspace.model("aaaa")
        assert not directory.exists() or is_intact(directory, old)
        if not was_killed:
            break
        prune(workspace, new, 1)
        assert models(workspace) == ["new"]
    assert not was_killed and moment > 5 and models(workspace) == ["new"]
