"""Publishing: what appears, appears whole, one at a time; what cannot be written is said once."""

import itertools
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from children import killed_at, small_volume
from filelock import FileLock

from kfp_finetune.errors import UserError
from kfp_finetune.manifests import MANIFEST_NAME, Manifest
from kfp_finetune.publishing import exclusive, locked, publishing, write_atomically

MANIFEST = Manifest("dataset", "0123456789abcdef", "/somewhere", "sha256:00", "datasets/0123456789abcdef", ())


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
