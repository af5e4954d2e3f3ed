"""The workspace: where things lie; names are safe; what cannot be written is said once."""

import itertools
import os
from pathlib import Path

import pytest
from children import UNPRIVILEGED_ID, killed_at, public_directory, run_unprivileged

from kfp_finetune.errors import UserError
from kfp_finetune.workspace import Workspace, check_series_name, content_key, open_workspace, point_latest


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
    for key in ("1" * 16, "2" * 16):
        workspace.export(key).mkdir(parents=True)
        (workspace.export(key) / "weights").write_text(key)
        link = point_latest(workspace, "series", workspace.export(key))
        assert os.readlink(link) == f"../exports/{key}"
    workspace.root.rename(tmp_path / "new-mount")
    assert (tmp_path / "new-mount" / "latest" / "series" / "weights").read_text() == "2" * 16


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
