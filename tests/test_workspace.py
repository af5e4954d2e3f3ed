"""The workspace: what appears, appears whole; names are safe; what cannot be written is said once."""

import itertools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from children import UNPRIVILEGED_ID, killed_at, public_directory, run_unprivileged, small_volume
from filelock import FileLock

from kfp_finetune.errors import UserError
from kfp_finetune.manifests import MANIFEST_NAME, FileEntry, Manifest, describe_files, is_intact, read_manifest
from kfp_finetune.publishing import exclusive, locked, publishing, write_atomically
from kfp_finetune.workspace import Workspace, check_series_name, content_key, open_workspace, point_latest

MANIFEST = Manifest(
    kind="dataset",
    key="0123456789abcdef",
    source="/somewhere/größe",
    revision="sha256:00",
    path="datasets/0123456789abcdef",
    files=(FileEntry("a/rows.jsonl", 3, "ff"), FileEntry("b.jsonl", 4, "ee")),
    facts={"format": "json", "splits": {"train": 2}, "empty": None},
)


def publish(target: Path, text: str) -> None:
    """Publishes two files, one of them in several pieces, and a manifest."""
    with exclusive(target), publishing(target) as staging:
        (staging / "part").mkdir()
        for _ in range(2):
            with (staging / "part" / "pieces").open("a") as file:
                file.write(text)
        (staging / "whole").write_text(text)
        (staging / MANIFEST_NAME).write_text(MANIFEST.to_json())


def contents(directory: Path) -> dict[str, str] | None:
    if not directory.exists():
        return None
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def whole(text: str) -> dict[str, str]:
    return {"part/pieces": text * 2, "whole": text, MANIFEST_NAME: MANIFEST.to_json()}


@pytest.mark.parametrize("old", [None, "old "], ids=["first", "replacing"])
def test_a_writer_killed_at_any_moment_leaves_nothing_half_and_the_next_removes_the_rest(
    tmp_path: Path, old: str | None
) -> None:
    seen: list[dict[str, str] | None] = []
    leftovers = 0
    for moment in itertools.count():
        target = tmp_path / str(moment) / "key"
        if old is not None:
            publish(target, old)
        if not killed_at(moment, lambda target=target: publish(target, "new ")):
            break
        seen.append(contents(target))
        leftovers += len(list(target.parent.glob(".tmp-*")))
        publish(target, "next ")
        assert contents(target) == whole("next ")
        assert sorted(path.name for path in target.parent.iterdir()) == [".key.lock", "key"]
    before = None if old is None else whole(old)
    assert all(state in (None, before, whole("new ")) for state in seen)
    assert seen[0] == before and seen[-1] == whole("new ")
    assert leftovers > 8


def test_an_error_in_the_body_publishes_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    publish(tmp_path / "key", "old ")
    with pytest.raises(RuntimeError), publishing(tmp_path / "key") as staging:
        (staging / "half").write_text("x")
        raise RuntimeError
    assert contents(tmp_path / "key") == whole("old ")
    assert not list(tmp_path.glob(".tmp-*"))


WRITER = """
import fcntl, sys
from pathlib import Path
from kfp_finetune.manifests import MANIFEST_NAME, read_manifest
from kfp_finetune.publishing import exclusive, publishing

def tell(event, arguments):
    if event == "fcntl.flock" and arguments[1] != fcntl.LOCK_UN:
        print("asking", flush=True)

sys.addaudithook(tell)
target, manifest = Path(sys.argv[1]), sys.argv[2]
with exclusive(target):
    if read_manifest(target):
        print("found", flush=True)
    else:
        with publishing(target) as staging:
            print("working", flush=True)
            sys.stdin.readline()
            (staging / MANIFEST_NAME).write_text(manifest)
"""


def test_of_two_processes_with_the_same_key_one_works_and_the_other_finds_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "key"), MANIFEST.to_json()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first:
        assert first.stdout.readline() == "asking\n"
        assert first.stdout.readline() == "working\n"
        with subprocess.Popen(command, **pipes) as second:
            assert second.stdout.readline() == "asking\n"
            first.communicate("go\n")
            said = second.communicate()[0].splitlines()
    assert said[-1] == "found" and set(said[:-1]) <= {
        "asking",
        "waiting for another process that does the same: publish key",
    }
    assert first.returncode == second.returncode == 0


@pytest.mark.parametrize("name", ["a", "0", "my-model", "a" * 40, "7b-v2"])
def test_a_plain_series_name_is_accepted(tmp_path: Path, name: str) -> None:
    assert Workspace(tmp_path).latest(name) == tmp_path / "latest" / name


@pytest.mark.parametrize(
    "name", ["", "../x", "..", ".", "a/b", "/a", "A", "a_b", "a.b", "-a", "a-", "a b", "a\n", "ä", "a" * 41]
)
def test_any_other_series_name_is_refused(tmp_path: Path, name: str) -> None:
    for use in (check_series_name, Workspace(tmp_path).latest):
        with pytest.raises(UserError, match="1 to 40 lower-case letters"):
            use(name)


def test_the_latest_link_is_relative_and_follows_a_moved_volume(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "old-mount")
    publish(workspace.export("1" * 16), "first ")
    publish(workspace.export("2" * 16), "second ")
    for key in ("1" * 16, "2" * 16):
        link = point_latest(workspace, "series", workspace.export(key))
        assert os.readlink(link) == f"../exports/{key}"
    workspace.root.rename(tmp_path / "new-mount")
    assert contents(tmp_path / "new-mount" / "latest" / "series") == whole("second ")


def test_a_reader_of_the_latest_link_sees_the_old_or_the_new_at_any_moment(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    old, new = workspace.export("1" * 16), workspace.export("2" * 16)
    for path in (old, new):
        path.mkdir(parents=True)
    seen = []
    for moment in itertools.count():
        point_latest(workspace, "series", old)
        if not killed_at(moment, lambda: point_latest(workspace, "series", new)):
            break
        seen.append(workspace.latest("series").resolve())
    assert set(seen) == {old.resolve()} and len(seen) >= 3
    assert workspace.latest("series").resolve() == new.resolve()


def test_a_reader_of_a_small_file_sees_the_old_or_the_new_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    seen = set()
    for moment in itertools.count():
        write_atomically(path, "old")
        if not killed_at(moment, lambda: write_atomically(path, "new")):
            break
        seen.add(path.read_text())
    assert "old" in seen <= {"old", "new"} and path.read_text() == "new"


def test_a_small_file_that_does_not_fit_leaves_the_old_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomically(path, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("result.json", "old")]


def test_a_content_key_is_the_same_on_every_machine_and_in_every_order() -> None:
    parts = {"kind": "dataset", "revision": "größe", "patterns": [["*.json"], []], "lr": 0.1}
    assert content_key(parts) == "e8ee820b9ea1ff4f"
    assert content_key(dict(reversed(parts.items()))) == "e8ee820b9ea1ff4f"


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "model", "revision": "r", "patterns": [["a", "b"], []]},
        {"kind": "dataset", "revision": "s", "patterns": [["a", "b"], []]},
        {"kind": "dataset", "revision": "r", "patterns": [["b", "a"], []]},
        {"kind": "dataset", "revision": "r", "patterns": [["a"], ["b"]]},
    ],
)
def test_another_part_gives_another_key(changed: dict[str, object]) -> None:
    assert content_key(changed) != content_key({"kind": "dataset", "revision": "r", "patterns": [["a", "b"], []]})


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


def test_a_workspace_is_made_if_it_is_absent_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    for _ in range(2):
        workspace = open_workspace(str(tmp_path / "a" / "b"))
    assert workspace.relative(workspace.dataset("key")) == "datasets/key"
    assert list(workspace.root.iterdir()) == []


@pytest.mark.parametrize("root", ["", "relative/path"])
def test_a_relative_root_is_refused_with_the_absolute_path(root: str) -> None:
    with pytest.raises(UserError) as caught:
        open_workspace(root)
    assert f"Give {Path(root).resolve()} instead." in str(caught.value)


def test_a_file_as_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in ("file", "file/below"):
        with pytest.raises(UserError, match="cannot write"):
            open_workspace(str(tmp_path / root))


@pytest.mark.parametrize(
    ("mode", "below"),
    [(0o555, ""), (0o555, "absent"), (0o444, "absent"), (0o000, "absent/deeper")],
    ids=["unwritable", "unwritable-parent", "unsearchable-parent", "closed-parent"],
)
def test_an_unwritable_root_is_one_problem_with_user_group_and_mode(mode: int, below: str) -> None:
    with public_directory() as directory:
        root = directory / "root"
        root.mkdir()
        root.chmod(mode)
        done = run_unprivileged(
            "from kfp_finetune.errors import UserError\nfrom kfp_finetune.workspace import open_workspace",
            "try:\n    open_workspace(sys.argv[1])\nexcept UserError as error:\n    print(error)",
            root / below,
        )
    assert done.stderr == ""
    assert done.stdout.startswith("1 problem with what was given:\n  - workspace: given ")
    assert f"uid {UNPRIVILEGED_ID}, gid " in done.stdout
    assert f"{root} is owned by {os.getuid()}:{os.getgid()} with mode {mode:o}" in done.stdout


def test_who_finds_the_lock_taken_says_so_and_gives_up_in_the_end(tmp_path: Path, capsys: pytest.CaptureFixture):
    with (
        FileLock(tmp_path / "lock", is_singleton=False),
        pytest.raises(UserError, match="another process has held"),
        locked(tmp_path / "lock", "train abc", wait_seconds=0.05),
    ):
        pytest.fail("the lock was given twice")
    assert "waiting for another process that does the same: train abc" in capsys.readouterr().out
    with locked(tmp_path / "lock", "train abc", wait_seconds=0.05):
        assert capsys.readouterr().out == ""


def test_a_full_volume_is_a_clear_message_and_leaves_nothing(tmp_path: Path):
    with small_volume(tmp_path / "volume", "1m") as volume:
        with pytest.raises(UserError, match="which is full"), publishing(volume / "target") as staging:
            (staging / "file").write_bytes(b"x" * 2_000_000)
        assert list(volume.iterdir()) == []


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
