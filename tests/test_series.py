"""Old trainings go, and none that something still needs."""

import os
import time

import pytest

from kfp_finetune.manifests import MANIFEST_NAME, Manifest
from kfp_finetune.publishing import locked
from kfp_finetune.series import note_use, prune_series
from kfp_finetune.workspace import open_workspace, point_latest


@pytest.fixture
def workspace(tmp_path):
    return open_workspace(str(tmp_path))


@pytest.fixture
def trained(workspace):
    """Leave a training of a series, planned some days ago, with an export unless there is to be none."""

    def leave(key, days, name="series", exported=True):
        workspace.training(key).mkdir(parents=True, exist_ok=True)
        if exported:
            export = workspace.export(key)
            export.mkdir(parents=True, exist_ok=True)
            manifest = Manifest(
                kind="export", key=key, source="s", revision="r", path=f"exports/{key}", files=(), facts={}
            )
            (export / MANIFEST_NAME).write_text(manifest.to_json())
        note_use(workspace, name, key)
        then = time.time() - days * 86_400
        os.utime(workspace.root / "series" / name / key, (then, then))

    return leave


def left(workspace):
    return sorted(path.name for path in (workspace.root / "trainings").iterdir() if not path.name.startswith("."))


def test_all_but_the_newest_go_with_their_exports(workspace, trained):
    for days, key in enumerate("abcd"):
        trained(key, days)
    assert prune_series(workspace, "series", 2) == ["c", "d"]
    assert left(workspace) == ["a", "b"] and not workspace.export("c").exists()
    assert prune_series(workspace, "series", 2) == []


def test_nothing_goes_unless_asked(workspace, trained):
    for days, key in enumerate("abc"):
        trained(key, days)
    assert prune_series(workspace, "series", 0) == []
    assert left(workspace) == ["a", "b", "c"]


def test_what_another_series_uses_or_points_to_stays(workspace, trained):
    trained("a", 0)
    trained("b", 5)
    trained("b", 5, name="other")
    trained("c", 6)
    point_latest(workspace, "third", workspace.export("c"))
    assert prune_series(workspace, "series", 1) == []
    assert left(workspace) == ["a", "b", "c"]


def test_what_is_being_trained_or_waits_for_its_turn_stays(workspace, trained):
    trained("a", 0)
    trained("waits", 0.5, exported=False)
    trained("failed", 2, exported=False)
    trained("runs", 3, exported=False)
    with locked(workspace.training("runs") / ".lock", "train runs"):
        assert prune_series(workspace, "series", 1) == ["failed"]
    assert left(workspace) == ["a", "runs", "waits"]
