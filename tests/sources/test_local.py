"""A local source: which files it takes, what names its bytes, and what it does with those it cannot read."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from children import public_directory, run_unprivileged

from kfp_finetune.errors import UserError
from kfp_finetune.fetch import Wanted, fetch
from kfp_finetune.manifests import FileEntry, describe_files, read_manifest
from kfp_finetune.sources.local import LocalSource
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.source import open_source
from kfp_finetune.workspace import open_workspace

EVERYTHING = Patterns()


def local(root: Path, patterns: Patterns = EVERYTHING) -> LocalSource:
    return LocalSource("dataset", str(root), root, patterns)


def verified(files: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
    return tuple(replace(file, verified="sha256") for file in files)


def write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return root


def test_every_file_but_the_hidden_is_taken_whole(tmp_path: Path) -> None:
    names = ["b", "a-b", "a/z.json", "a/b/c.txt", "ä [1] *.json", "a.d/.hidden", ".hidden", ".git/config", ".cache/a/b"]
    source = local(write(tmp_path / "from", *names))
    assert list(source.files()) == ["a-b", "a/b/c.txt", "a/z.json", "b", "ä [1] *.json"]
    (tmp_path / "to").mkdir()
    seen: list[tuple[int, int]] = []
    fetched = source.fetch(tmp_path / "to", lambda done, total: seen.append((done, total)))
    for name in source.files():
        assert (tmp_path / "to" / name).read_text() == f"content of {name}"
    assert fetched == verified(describe_files(tmp_path / "to"))
    total = sum(file.size for file in describe_files(tmp_path / "to"))
    assert [row[1] for row in seen] == [total] * 5 and seen[-1][0] == total
    assert [row[0] for row in seen] == sorted(row[0] for row in seen)


def test_links_to_files_are_followed_and_links_to_directories_are_not(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "blob", "folder/inside")
    source = local(write(tmp_path / "from", "plain"))
    (tmp_path / "from" / "link").symlink_to(tmp_path / "elsewhere" / "blob")
    (tmp_path / "from" / "folder").symlink_to(tmp_path / "elsewhere" / "folder")
    (tmp_path / "from" / "loop").symlink_to(tmp_path / "from")
    assert list(source.files()) == ["link", "plain"]
    (tmp_path / "to").mkdir()
    source.fetch(tmp_path / "to", lambda done, total: None)
    assert not (tmp_path / "to" / "link").is_symlink()
    assert (tmp_path / "to" / "link").read_text() == "content of blob"


def test_a_link_to_a_directory_as_root_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "real", "a")
    (tmp_path / "latest").symlink_to("real")
    assert list(local(tmp_path / "latest").files()) == ["a"]
    assert local(tmp_path / "latest").revision() == local(tmp_path / "real").revision()


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a")
    os.mkfifo(tmp_path / "pipe")
    assert list(local(tmp_path).files()) == ["a"]


def test_a_link_to_nothing_is_refused_by_name_and_not_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.json")
    (tmp_path / "shard.json").symlink_to("absent")
    with pytest.raises(UserError, match=r"shard\.json"):
        local(tmp_path).revision()
    assert list(local(tmp_path, Patterns(ignore=("shard*",))).files()) == ["a.json"]


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (Patterns(allow=("*.json",)), ["a.json", "sub/b.json"]),
        (Patterns(allow=("*.json", "*.txt"), ignore=("*/*",)), ["a.json", "c.txt"]),
        (Patterns(ignore=("*.json",)), ["c.txt", "d.JSON"]),
        (Patterns(allow=("?.json",)), ["a.json"]),
        (Patterns(allow=("[ac].*",)), ["a.json", "c.txt"]),
    ],
)
def test_patterns_choose_the_files_of_a_directory(tmp_path: Path, patterns: Patterns, wanted: list[str]) -> None:
    write(tmp_path, "a.json", "sub/b.json", "c.txt", "d.JSON")
    assert list(local(tmp_path, patterns).files()) == wanted


def test_a_single_file_is_wanted_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path, ".odd")
    assert list(local(tmp_path / ".odd", Patterns(allow=("*.json",))).files()) == [".odd"]


def test_the_same_bytes_elsewhere_are_the_same_revision(tmp_path: Path) -> None:
    first = local(write(tmp_path / "one", "b", "a/c")).revision()
    assert local(write(tmp_path / "two", "a/c", "b")).revision() == first
    (tmp_path / "one").rename(tmp_path / "moved")
    write(tmp_path / "moved", ".hidden")
    os.utime(tmp_path / "moved" / "b", (0, 0))
    assert local(tmp_path / "moved").revision() == first
    assert first.startswith("sha256:") and len(first) == 71


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a").write_bytes(b"content of b"),
        lambda root: (root / "b").rename(root / "bb"),
        lambda root: (root / "a").unlink(),
        lambda root: write(root, "c"),
        lambda root: (root / "a").rename(root / "sub" / "a"),
    ],
    ids=["byte", "name", "gone", "more", "moved"],
)
def test_a_changed_byte_or_name_is_another_revision(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = write(tmp_path, "a", "b", "sub/d")
    before = local(root).revision()
    change(root)
    assert local(root).revision() != before


def test_a_name_that_is_no_utf8_is_a_name_like_any_other(tmp_path: Path) -> None:
    root = write(tmp_path / "from")
    root.mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.json")).write_text("x")
    source = local(root)
    assert source.revision() != local(write(tmp_path / "other", "cafe.json")).revision()
    (tmp_path / "to").mkdir()
    assert source.fetch(tmp_path / "to", lambda done, total: None) == verified(describe_files(tmp_path / "to"))


def publish(tmp_path: Path, source: LocalSource) -> Path:
    workspace = open_workspace(str(tmp_path / "workspace"))
    wanted = Wanted("dataset", source, {}, lambda names: None, lambda _: {})
    return workspace.root / fetch(workspace, wanted, workspace.dataset).path


def test_what_was_published_can_be_a_source_again(tmp_path: Path) -> None:
    published = publish(tmp_path, local(write(tmp_path / "from", "a", "b/MANIFEST.json")))
    assert list(local(published).files()) == ["a", "b/MANIFEST.json"]
    assert local(published).revision() == local(tmp_path / "from").revision()
    assert publish(tmp_path / "again", local(published)).name == published.name


def test_a_second_fetch_finds_the_first_by_its_bytes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = publish(tmp_path, local(write(tmp_path / "from", "a")))
    inode = (first / "a").stat().st_ino
    assert publish(tmp_path, local(write(tmp_path / "copy", "a"))) == first
    assert "is on the volume already" in capfd.readouterr().out
    assert (first / "a").stat().st_ino == inode
    assert read_manifest(first).source == str(tmp_path / "from")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_text("other"), "changed while they were fetched"),
        (lambda path: path.unlink(), "No such file or directory"),
    ],
    ids=["changed", "gone"],
)
def test_a_source_that_changes_while_it_is_fetched_is_refused(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    source = local(write(tmp_path / "from", "a", "b"))
    source.revision()
    change(tmp_path / "from" / "b")
    with pytest.raises(UserError, match=message):
        publish(tmp_path, source)
    assert [path.suffix for path in (tmp_path / "workspace" / "datasets").iterdir()] == [".lock"]


@pytest.mark.parametrize("closed", ["a", "sub", "sub/b", "."])
def test_a_file_or_folder_that_cannot_be_read_is_refused_by_name(closed: str) -> None:
    with public_directory() as directory:
        root = write(directory / "from", "a", "sub/b")
        (root / closed).chmod(0)
        done = run_unprivileged(
            "from pathlib import Path\nfrom kfp_finetune.errors import UserError\n"
            "from kfp_finetune.sources.source import open_source\nfrom kfp_finetune.sources.patterns import Patterns",
            "source = open_source('dataset', sys.argv[1], Patterns())\n"
            "try:\n    print(list(source.files()), source.revision())\nexcept UserError as error:\n    print(error)",
            root,
        )
    assert done.stderr == ""
    assert "1 problem with what was given:" in done.stdout
    assert f"Permission denied: '{root / closed}" in done.stdout


@pytest.mark.parametrize("uri", ["{}/from", "file://{}/from"])
def test_a_path_and_a_file_uri_name_the_same(tmp_path: Path, uri: str) -> None:
    write(tmp_path / "from", "a")
    source = open_source("dataset", uri.format(tmp_path), EVERYTHING)
    assert list(source.files()) == ["a"] and source.uri == uri.format(tmp_path)


@pytest.mark.parametrize("uri", ["", " ", "file://", "ftp://host/x", "https://host/x"])
def test_an_empty_or_unknown_uri_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match="model: given"):
        open_source("model", uri, EVERYTHING)


@pytest.mark.parametrize(
    ("uri", "message"),
    [("absent", "a file or directory that exists"), (".", "no file of the wanted kinds")],
)
def test_a_path_without_wanted_files_is_refused_with_the_uri(tmp_path: Path, uri: str, message: str) -> None:
    write(tmp_path, "a.txt")
    with pytest.raises(UserError, match=message) as caught:
        open_source("model", str(tmp_path / uri), Patterns(allow=("*.json",))).files()
    assert str(tmp_path) in str(caught.value)
