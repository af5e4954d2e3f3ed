"""Repositories of the Hub: pinned, chosen, reused; with the real client against a Hub on loopback."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from children import killed_at
from servers.hub import Hub, serve

from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.datafiles import find_data_files
from kfp_finetune.errors import UserError
from kfp_finetune.manifests import Manifest, read_manifest
from kfp_finetune.sources.hub_address import HubAddress, is_hub_name, parse_address, repository_name
from kfp_finetune.sources.local import LocalSource
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.source import open_source
from kfp_finetune.workspace import FETCH_REPORT_NAME

ROWS = '{"input": "a", "output": "b"}\n'
LARGE = ROWS * 100
"""Enough to be kept in LFS."""

CONFIGS = """---
license: mit
configs:
- config_name: main
  data_files:
  - split: train_sft
    path: data/sft-*
  - split: test
    path: ["data/held.jsonl"]
- config_name: other
  data_dir: other
---
"""


HUGE_CONFIGS = f"""---
z: &z {{path: &p [&q "{"x" * 100_000}", {"*q, " * 999}"train.jsonl"]}}
configs:
- config_name: a
  data_files: [{"*z, " * 10_000}*z]
- config_name: b
- config_name: &n [{"x, " * 10_000}]
---
"""
"""A few hundred kilobytes that stand for a terabyte."""


def names(manifest: Manifest) -> list[str]:
    return [file.path for file in manifest.files if file.path != FETCH_REPORT_NAME]


@pytest.mark.parametrize(
    ("rest", "address"),
    [
        ("org/name", HubAddress("org/name", "", "")),
        ("imdb", HubAddress("imdb", "", "")),
        ("imdb@v1", HubAddress("imdb", "v1", "")),
        ("org/name/", HubAddress("org/name", "", "")),
        ("datasets/org/name", HubAddress("org/name", "", "")),
        ("org/name@main", HubAddress("org/name", "main", "")),
        ("org/name/dir/rows.jsonl", HubAddress("org/name", "", "dir/rows.jsonl")),
        ("org/name@v1.0/dir", HubAddress("org/name", "v1.0", "dir")),
        ("org/name@refs/convert/parquet/en", HubAddress("org/name", "refs/convert/parquet", "en")),
        ("org/name@a%2Fb/dir", HubAddress("org/name", "a/b", "dir")),
        ("org/name/dir@main", HubAddress("org/name", "", "dir@main")),
    ],
)
def test_an_address_is_read_as_the_hub_s_own_file_system_writes_it(rest: str, address: HubAddress) -> None:
    assert parse_address("dataset", f"hf://{rest}", rest) == address


@pytest.mark.parametrize("rest", ["", "/", "@main", "org/name@", "org/../x", "org/na me", "models/org/name"])
def test_another_address_is_refused(rest: str) -> None:
    with pytest.raises(UserError, match=r"hf://ORGANISATION/NAME|a dataset repository"):
        parse_address("dataset", f"hf://{rest}", rest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("imdb", True), ("org/name", True), ("bert-base-uncased@main", True), ("Qwen/Qwen2.5-0.5B", True)]
    + [(text, False) for text in ("a/b/c", "./a", "/a", "rows.jsonl", "data/rows.csv", "~/a", "a*", "", "..")],
)
def test_a_name_without_a_scheme_can_be_one_of_the_hub_or_not(text: str, expected: bool) -> None:
    assert is_hub_name(text) is expected


def test_a_configuration_that_is_made_to_be_huge_is_read_in_no_time(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"README.md": HUGE_CONFIGS, "train.jsonl": ROWS})
    assert names(initialize_dataset("org/rows", str(tmp_path), config="a")) == ["train.jsonl"]
    with pytest.raises(UserError, match="one of a, b") as caught:
        initialize_dataset("org/rows", str(tmp_path), config="c")
    assert len(str(caught.value)) < 1000


def test_a_path_that_exists_wins_over_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imdb").mkdir()
    assert isinstance(open_source("dataset", "imdb", Patterns()), LocalSource)
    assert not isinstance(open_source("dataset", "imdb2", Patterns()), LocalSource)


def test_a_dataset_is_published_with_its_commit_in_key_and_manifest(hub: Hub, tmp_path: Path) -> None:
    files = {"train.jsonl": LARGE, "sub/test.jsonl": ROWS, "README.md": "# x", ".gitattributes": "", "model.py": "x"}
    commit = hub.add("dataset", "org/rows", files)
    manifest = initialize_dataset("hf://org/rows", str(tmp_path))
    assert manifest.revision == commit and manifest.source == "hf://org/rows"
    assert names(manifest) == ["sub/test.jsonl", "train.jsonl"]
    for name in names(manifest):
        assert (tmp_path / manifest.path / name).read_text() == files[name]
    assert read_manifest(tmp_path / manifest.path) == manifest
    assert initialize_dataset(f"org/rows@{commit}", str(tmp_path)).key == manifest.key


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("hf://org/rows/sub", ["a.jsonl"]),
        ("hf://org/rows/sub/a.jsonl", ["a.jsonl"]),
        ("hf://datasets/org/rows@main", ["b.jsonl", "sub/a.jsonl"]),
        ("org/rows", ["b.jsonl", "sub/a.jsonl"]),
    ],
)
def test_a_folder_or_a_file_of_a_repository_is_enough(hub: Hub, tmp_path: Path, uri: str, expected: list[str]) -> None:
    hub.add("dataset", "org/rows", {"sub/a.jsonl": ROWS, "b.jsonl": ROWS, "sub2/c.md": "x"})
    assert names(initialize_dataset(uri, str(tmp_path))) == expected


IN_FOLDERS = ("data/en/a.jsonl", "data/en/b.jsonl", "data/de/a.jsonl", "data/en/x/c.jsonl", "data/en/.hidden.jsonl")
IN_FOLDERS += ("data/en/x.md", "train.jsonl", "data/rows[1].jsonl", "data/rows1.jsonl")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/en/*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("@main/data/en/[b-z]*", ["b.jsonl"]),
        ("/data/*/a.jsonl", ["de/a.jsonl", "en/a.jsonl"]),
        ("/data/e?/**/*.jsonl", ["en/a.jsonl", "en/b.jsonl", "en/x/c.jsonl"]),
        ("/**/c.jsonl", ["data/en/x/c.jsonl"]),
        ("/*.jsonl", ["train.jsonl"]),
        ("/data/rows[1].jsonl", ["rows[1].jsonl"]),
    ],
)
def test_a_pattern_in_an_address_takes_the_files_it_matches(
    hub: Hub, tmp_path: Path, path: str, expected: list[str]
) -> None:
    hub.add("dataset", "org/rows", dict.fromkeys(IN_FOLDERS, ROWS) | {"README.md": CONFIGS})
    manifest = initialize_dataset(f"hf://org/rows{path}", str(tmp_path))
    assert names(manifest) == expected
    hub.requests.clear()
    assert initialize_dataset(f"hf://org/rows{path}", str(tmp_path)) == manifest
    assert [request.path for request in hub.requests] in (
        ["/api/datasets/org/rows"],
        ["/api/datasets/org/rows/revision/main"],
    )


def test_other_patterns_are_other_entries_and_allow_patterns_choose_among_what_they_match(
    hub: Hub, tmp_path: Path
) -> None:
    hub.add("dataset", "org/rows", dict.fromkeys(IN_FOLDERS, ROWS))
    root = str(tmp_path)
    found = [initialize_dataset(f"hf://org/rows/data/en/{pattern}", root) for pattern in ("a*", "b*", "[ab]*")]
    assert len({manifest.key for manifest in found}) == 3
    assert names(initialize_dataset("hf://org/rows/data/en/*", root, ignore_patterns=["a*"])) == ["b.jsonl"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/data/en/*.csv", "matches nothing of what is there: 'a.jsonl', 'b.jsonl', 'x.md', 'x/c.jsonl'; allowed"),
        ("/data/??/*.csv", "'de/a.jsonl', 'en/a.jsonl', 'en/b.jsonl', 'en/x.md', 'en/x/c.jsonl' and 2 more; allowed"),
        ("/data/fr/*.jsonl", "has no data/fr"),
        ("/*.md", "which has no file of the wanted kinds"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_what_is_there(
    hub: Hub, tmp_path: Path, path: str, message: str
) -> None:
    hub.add("dataset", "org/rows", dict.fromkeys(IN_FOLDERS, ROWS) | {"README.md": "x"})
    with pytest.raises(UserError) as caught:
        initialize_dataset(f"hf://org/rows{path}", str(tmp_path))
    assert message in str(caught.value) and f"hf://org/rows{path}" in str(caught.value)


def test_a_name_of_old_is_followed_to_where_it_moved(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "stanfordnlp/imdb", {"a.jsonl": ROWS})
    hub.moved["imdb"] = "stanfordnlp/imdb"
    assert names(initialize_dataset("imdb", str(tmp_path))) == ["a.jsonl"]


def test_what_is_on_the_volume_is_found_with_one_request_and_a_moved_branch_is_seen(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"a.jsonl": ROWS})
    first = initialize_dataset("org/rows", str(tmp_path))
    hub.requests.clear()
    assert initialize_dataset("org/rows", str(tmp_path)) == first
    assert [request.path for request in hub.requests] == ["/api/datasets/org/rows"]
    hub.requests.clear()
    assert initialize_dataset(f"hf://org/rows@{first.revision}", str(tmp_path)) == first
    assert hub.requests == []
    hub.add("dataset", "org/rows", {"a.jsonl": ROWS * 2})
    assert initialize_dataset("org/rows", str(tmp_path)).revision != first.revision


def test_without_reuse_it_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"a.jsonl": ROWS})
    first = initialize_dataset("org/rows", str(tmp_path))
    (tmp_path / first.path / "a.jsonl").write_text("x" * len(ROWS))
    assert initialize_dataset("org/rows", str(tmp_path), reuse=False) == first
    assert (tmp_path / first.path / "a.jsonl").read_text() == ROWS


READER = """
import os, sys, threading
from pathlib import Path
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset

uri, root, directory, expected = sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4].encode()
moments, looking = 0, False

def look(event, arguments):
    global moments, looking
    if looking or event not in ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"):
        return
    looking = True
    try:
        moments += 1
        found = {path.name: path.read_bytes() for path in map(directory.joinpath, ("a.jsonl", "b.jsonl"))}
        assert found == {"a.jsonl": expected, "b.jsonl": expected}, (event, arguments, found)
        assert (directory / "MANIFEST.json").read_text().endswith("}")
    except (AssertionError, OSError) as error:
        print("seen:", repr(error), flush=True)
        os._exit(1)
    finally:
        looking = False

sys.addaudithook(look)
initialize_dataset(uri, root, reuse=False)
print(moments)
"""


def test_who_reads_what_is_fetched_again_finds_every_file_whole_at_any_moment(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"a.jsonl": ROWS, "b.jsonl": ROWS})
    directory = tmp_path / initialize_dataset("org/rows", str(tmp_path)).path
    before = {path.name: path.stat().st_ino for path in directory.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", READER, "org/rows", str(tmp_path), str(directory), ROWS], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1]) > 50
    assert {path.name: path.stat().st_ino for path in directory.iterdir()} == before


def test_without_reuse_a_damaged_file_is_replaced_and_who_reads_it_keeps_what_he_opened(
    hub: Hub, tmp_path: Path
) -> None:
    hub.add("dataset", "org/rows", {"a.jsonl": ROWS, "b.jsonl": ROWS, "sub/c.jsonl": ROWS})
    first = initialize_dataset("org/rows", str(tmp_path))
    directory = tmp_path / first.path
    (directory / "a.jsonl").write_text("x" * len(ROWS))
    (directory / "of-nobody").mkdir()
    shutil.rmtree(directory / "sub")
    (directory / "sub").symlink_to(tmp_path)
    kept = (directory / "b.jsonl").stat().st_ino
    with (directory / "a.jsonl").open() as reader:
        assert initialize_dataset("org/rows", str(tmp_path), reuse=False) == first
        assert reader.read() == "x" * len(ROWS)
    assert all((directory / name).read_text() == ROWS for name in ("a.jsonl", "b.jsonl", "sub/c.jsonl"))
    assert (directory / "b.jsonl").stat().st_ino == kept
    assert not (directory / "of-nobody").exists() and not (tmp_path / "c.jsonl").exists()


def test_the_token_goes_to_the_hub_and_not_to_the_storage_nor_into_the_log(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.add("dataset", "org/rows", {"train.jsonl": LARGE})
    hub.repositories["dataset", "org/rows"].token = "hf_very_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    manifest = initialize_dataset("org/rows", str(tmp_path))
    sent = {request.path.split("/")[1]: request.headers.get("authorization") for request in hub.requests}
    assert sent == {"api": "Bearer hf_very_secret", "datasets": "Bearer hf_very_secret", "storage": None}
    output = "".join(capfd.readouterr())
    assert "secret" not in output + manifest.to_json()


def test_the_token_does_not_follow_a_listing_to_another_server(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{number}.jsonl": ROWS for number in range(3)}
    hub.add("dataset", "org/rows", files)
    hub.repositories["dataset", "org/rows"].token = "good"
    hub.page = 2
    monkeypatch.setenv("HF_TOKEN", "good")
    with serve() as other:
        other.add("dataset", "org/rows", files)
        hub.next_page_url = other.url
        assert len(names(initialize_dataset("org/rows", str(tmp_path)))) == 3
        assert [request.headers.get("authorization") for request in other.requests] == [None]
    assert {request.headers.get("authorization") for request in hub.requests} == {"Bearer good"}


def test_patterns_choose_files_and_pickles_must_be_asked_for(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"a.jsonl": ROWS, "b.jsonl": ROWS, "c.pkl": "x", "d.bin": "x"})
    root = str(tmp_path)
    assert names(initialize_dataset("org/rows", root)) == ["a.jsonl", "b.jsonl"]
    assert names(initialize_dataset("org/rows", root, allow_patterns=["a*"])) == ["a.jsonl"]
    assert names(initialize_dataset("org/rows", root, ignore_patterns=["a*"])) == ["b.jsonl"]


def test_files_of_several_formats_are_refused_before_any_is_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"a.jsonl": ROWS, "LICENSE.txt": "x"})
    with pytest.raises(
        UserError, match=r"(?s)files of the formats json, text; .*by a pattern, such as /\*\.jsonl after"
    ):
        initialize_dataset("org/rows", str(tmp_path))
    assert hub.bodies() == []
    assert names(initialize_dataset("hf://org/rows/*.jsonl", str(tmp_path))) == ["a.jsonl"]


@pytest.mark.parametrize(
    ("config", "splits"),
    [
        ("", {"train_sft": ["data/sft-0.jsonl"], "test": ["data/held.jsonl"]}),
        ("main", {"train_sft": ["data/sft-0.jsonl"], "test": ["data/held.jsonl"]}),
        ("other", {"train": ["other/x.jsonl"]}),
        ("data", {"train": ["data/held.jsonl", "data/sft-0.jsonl"]}),
    ],
)
def test_a_configuration_says_which_files_and_splits(
    hub: Hub, tmp_path: Path, config: str, splits: dict[str, list[str]]
) -> None:
    readme = CONFIGS if config else CONFIGS.replace("name: main", "name: main\n  default: true")
    files = {"README.md": readme, "data/sft-0.jsonl": ROWS, "data/held.jsonl": ROWS, "other/x.jsonl": ROWS}
    hub.add("dataset", "org/rows", files)
    manifest = initialize_dataset("org/rows", str(tmp_path), config=config)
    found = find_data_files(tmp_path / manifest.path)
    directory = tmp_path / manifest.path
    assert {
        split: [str(path.relative_to(directory)) for path in paths] for split, paths in found.splits.items()
    } == splits


@pytest.mark.parametrize(("config", "message"), [("", "one of main, other"), ("none", "one of main, other")])
def test_a_configuration_that_is_not_there_or_not_named_is_refused(
    hub: Hub, tmp_path: Path, config: str, message: str
) -> None:
    hub.add("dataset", "org/rows", {"README.md": CONFIGS, "data/sft-0.jsonl": ROWS})
    with pytest.raises(UserError, match=message):
        initialize_dataset("org/rows", str(tmp_path), config=config)


@pytest.mark.parametrize("uri", ["hf://org/rows/data", "hf://org/rows/*.jsonl", "s3://bucket/x", "/data/x"])
def test_a_configuration_of_anything_but_a_dataset_repository_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(UserError, match="config: given 'main'"):
        initialize_dataset(uri, str(tmp_path), config="main")


def test_a_listing_of_many_pages_is_read_to_its_end_and_found_again_at_once(hub: Hub, tmp_path: Path) -> None:
    hub.page = 10
    hub.add("dataset", "org/rows", {f"{number:04}.jsonl": ROWS for number in range(31)})
    manifest = initialize_dataset("org/rows", str(tmp_path))
    assert len(names(manifest)) == 31
    hub.requests.clear()
    assert initialize_dataset("org/rows", str(tmp_path)) == manifest
    assert len(hub.requests) == 1


def test_a_thousand_files_are_found_again_without_a_request_for_each(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("dataset", "org/rows", {f"{number % 7}/{number:04}.jsonl": ROWS for number in range(1000)})
    manifest = initialize_dataset("org/rows", str(tmp_path))
    assert len(names(manifest)) == 1000
    hub.requests.clear()
    assert initialize_dataset("org/rows", str(tmp_path)) == manifest
    assert [request.path for request in hub.requests] == ["/api/datasets/org/rows"]
    assert initialize_dataset(f"org/rows@{commit}", str(tmp_path)) == manifest
    assert len(hub.requests) == 1


def test_the_manifest_says_how_each_file_was_verified(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"large.jsonl": LARGE, "small.jsonl": ROWS})
    manifest = initialize_dataset("org/rows", str(tmp_path))
    verified = {file.path: file.verified for file in manifest.files}
    assert verified == {FETCH_REPORT_NAME: "", "large.jsonl": "sha256", "small.jsonl": "git sha1"}


def test_killed_while_it_is_fetched_again_it_leaves_what_was_there_whole(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"a.jsonl": ROWS, "b.jsonl": LARGE})
    manifest = initialize_dataset("org/rows", str(tmp_path))
    directory = tmp_path / manifest.path
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    for moment in itertools.count(0, 3):
        (directory / "a.jsonl").write_text(ROWS)
        is_damaged = moment % 2
        if is_damaged:
            (directory / "a.jsonl").write_text("x" * len(ROWS))
        was_killed = killed_at(moment, lambda: initialize_dataset("org/rows", str(tmp_path), reuse=False))
        found = {path.name: path.read_bytes() for path in directory.iterdir()}
        assert found == before or (is_damaged and found == before | {"a.jsonl": b"x" * len(ROWS)})
        if not was_killed:
            break
    assert found == before and moment > 60


def test_the_report_and_the_facts_say_what_the_rows_are(hub: Hub, tmp_path: Path) -> None:
    rows = [{"input": "q<b>", "output": "x"}, {"input": "q<b>", "output": "x"}, {"input": "r", "output": " "}]
    hub.add("dataset", "org/rows", {"a.jsonl": "\n".join(map(json.dumps, rows))})
    manifest = initialize_dataset("org/rows", str(tmp_path))
    report = (tmp_path / manifest.path / FETCH_REPORT_NAME).read_text()
    assert {name: manifest.facts[name] for name in ("rows", "duplicates", "rows_with_empty_values", "columns")} == {
        "rows": 3,
        "duplicates": 1,
        "rows_with_empty_values": 1,
        "columns": "input, output",
    }
    assert "q&lt;b&gt;" in report and "<b>" not in report and manifest.revision in report


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("hf://org/model@v1", "org/model"),
        ("org/model@main", "org/model"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("s3://bucket/models/a", "s3://bucket/models/a"),
        ("/models/a", "/models/a"),
    ],
)
def test_an_adapter_names_its_base_as_the_hub_does(uri: str, name: str):
    assert repository_name(uri) == name
