"""Old trainings go, and none that something still needs; the newest export is found whole."""

import os
import subprocess
import sys
import time

import pytest

from kfp_finetune.errors import UserError
from kfp_finetune.manifests import MANIFEST_NAME, Manifest
from kfp_finetune.publishing import discard, exclusive, locked
from kfp_finetune.series import hold_newest, newest_export, note_use, prune_series, release
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


def begins_with(workspace, key, export):
    (workspace.training(key) / "plan.json").write_text(f'{{"model": "exports/{export}/merged"}}')


def test_what_a_training_without_an_export_begins_with_stays_until_it_has_one(workspace, trained):
    trained("newest", 0)
    trained("child", 0.5, exported=False)
    trained("parent", 3)
    begins_with(workspace, "child", "parent")
    assert prune_series(workspace, "series", 1) == []
    trained("child", 0.5)
    assert prune_series(workspace, "series", 1) == ["child", "parent"]


def test_what_a_training_of_another_series_begins_with_stays(workspace, trained):
    trained("newest", 0)
    trained("parent", 3)
    trained("child", 2, name="other", exported=False)
    begins_with(workspace, "child", "parent")
    assert prune_series(workspace, "series", 1) == []
    assert left(workspace) == ["child", "newest", "parent"]


def test_a_training_that_failed_keeps_what_it_begins_with_only_as_long_as_it_stays(workspace, trained):
    trained("newest", 0)
    trained("failed", 2, exported=False)
    trained("parent", 3)
    begins_with(workspace, "failed", "parent")
    assert prune_series(workspace, "series", 1) == ["failed", "parent"]


def test_the_newest_export_is_held_until_it_is_released_or_for_a_day(workspace, trained):
    trained("old", 3)
    point_latest(workspace, "series", workspace.export("old"))
    first, second = hold_newest(workspace, "series"), hold_newest(workspace, "series")
    assert first.export.key == "old" and first.hold != second.hold
    trained("new", 0)
    point_latest(workspace, "series", workspace.export("new"))
    release(workspace, first.hold)
    assert prune_series(workspace, "series", 1) == []
    yesterday = time.time() - 86_500
    os.utime(workspace.root / "exports" / second.hold, (yesterday, yesterday))
    assert prune_series(workspace, "series", 1) == ["old"]
    assert not list((workspace.root / "exports").glob(".hold-*"))


def test_a_series_that_points_to_nothing_has_no_newest_export(workspace):
    assert newest_export(workspace, "series") is None
    assert hold_newest(workspace, "series") is None
    with pytest.raises(UserError, match="lower-case"):
        hold_newest(workspace, "../x")


@pytest.mark.parametrize("damage", ["a file too many", "no manifest", "gone"])
def test_an_export_that_is_not_whole_is_not_taken_and_not_passed_over(workspace, trained, damage):
    trained("a", 0)
    point_latest(workspace, "series", workspace.export("a"))
    if damage == "a file too many":
        (workspace.export("a") / "more").touch()
    elif damage == "no manifest":
        (workspace.export("a") / MANIFEST_NAME).unlink()
    else:
        discard(workspace.export("a"))
    assert newest_export(workspace, "series") is None
    with pytest.raises(UserError, match="points to exports/a, which has not all its files"):
        hold_newest(workspace, "series")


LOOKING = """
import sys
from kfp_finetune.series import hold_newest
from kfp_finetune.workspace import open_workspace
print("found", hold_newest(open_workspace(sys.argv[1]), "series").export.key)
"""


def test_who_comes_while_the_newest_export_goes_finds_the_one_that_came(workspace, trained):
    trained("old", 3)
    trained("new", 0)
    point_latest(workspace, "series", workspace.export("old"))
    command = [sys.executable, "-c", LOOKING, str(workspace.root)]
    with exclusive(workspace.export("old")):
        looking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert looking.stdout.readline().startswith("waiting for another process")
        point_latest(workspace, "series", workspace.export("new"))
        discard(workspace.export("old"))
    assert looking.communicate()[0] == "found new\n"
