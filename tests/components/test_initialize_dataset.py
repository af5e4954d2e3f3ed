"""initialize_dataset: whole files and true facts for good sources, one message and nothing published for bad ones."""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from bombs import one_huge_list, one_value_for_all_rows
from kfp import dsl

from kfp_finetune.artifacts import recall_manifest
from kfp_finetune.components.initialize_dataset.component import initialize_dataset as component
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.datafiles import open_split
from kfp_finetune.errors import UserError
from kfp_finetune.lines import LARGEST_ROW_BYTES
from kfp_finetune.manifests import MANIFEST_NAME, Manifest, describe_files, read_manifest
from kfp_finetune.workspace import FETCH_REPORT_NAME

ENDINGS = ["jsonl", "json", "csv", "parquet", "arrow", "txt", "xml"]
ROWS = '{"input": "a", "output": "b"}\n' * 3


def write(root: Path, *names: str, content: str = ROWS) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def names(manifest: Manifest) -> list[str]:
    """Of the files that came from the source."""
    return [file.path for file in manifest.files if file.path != FETCH_REPORT_NAME]


def published(workspace: Path) -> list[str]:
    """Everything below datasets/ but lock files."""
    return sorted(path.name for path in (workspace / "datasets").glob("*") if path.suffix != ".lock")


def test_a_folder_is_published_whole_with_its_facts(tmp_path: Path) -> None:
    source = write(tmp_path / "from", "train-0.jsonl", "train-1.jsonl", "test/x.json", "README.md", ".hidden.json")
    manifest = initialize_dataset(str(source), str(tmp_path / "workspace"))
    directory = tmp_path / "workspace" / manifest.path
    assert manifest.kind == "dataset" and manifest.source == str(source)
    assert manifest.path == f"datasets/{manifest.key}"
    assert manifest.facts == {
        "format": "json",
        "splits": {"test": 1, "train": 2},
        "columns": "input, output",
        "rows": 9,
        "all_rows": True,
        "duplicates": 8,
        "rows_with_empty_values": 0,
    }
    assert names(manifest) == ["test/x.json", "train-0.jsonl", "train-1.jsonl"]
    assert sum(file.size for file in manifest.files if file.path in names(manifest)) == 3 * len(ROWS)
    assert [replace(file, verified="") for file in manifest.files] == list(describe_files(directory))
    assert {file.verified for file in manifest.files if file.path in names(manifest)} == {"sha256"}
    assert (directory / "test/x.json").read_text() == ROWS
    assert read_manifest(directory) == manifest
    assert published(tmp_path / "workspace") == [manifest.key]


@pytest.mark.parametrize("name", [f"rows.{ending}" for ending in ENDINGS])
def test_a_single_file_is_published_under_its_name(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "from", name) / name
    manifest = initialize_dataset(f"file://{source}", str(tmp_path / "workspace"))
    assert names(manifest) == [name]
    assert manifest.facts["splits"] == {"train": 1}


def test_a_pattern_takes_the_files_it_matches(tmp_path: Path) -> None:
    source = write(tmp_path / "from", "part-0.jsonl", "test/part-1.jsonl", "other.jsonl", "part-2.md")
    (source / "part-3.jsonl").mkdir()
    found = {
        pattern: names(initialize_dataset(str(source / pattern), str(tmp_path / "workspace")))
        for pattern in ("part-*.jsonl", "part-*", "**/part-[01].jsonl", "*/*.jsonl")
    }
    assert found == {
        "part-*.jsonl": ["part-0.jsonl"],
        "part-*": ["part-0.jsonl"],
        "**/part-[01].jsonl": ["part-0.jsonl", "test/part-1.jsonl"],
        "*/*.jsonl": ["test/part-1.jsonl"],
    }


def test_a_name_that_exists_is_no_pattern(tmp_path: Path) -> None:
    source = write(tmp_path / "from", "rows[1].jsonl", "rows1.jsonl") / "rows[1].jsonl"
    assert names(initialize_dataset(str(source), str(tmp_path / "workspace"))) == [source.name]


def test_a_second_call_reuses_what_is_there_and_a_changed_source_does_not(tmp_path: Path) -> None:
    source, root = write(tmp_path / "from", "rows.jsonl"), str(tmp_path / "workspace")
    first = initialize_dataset(str(source), root)
    inode = (tmp_path / "workspace" / first.path / "rows.jsonl").stat().st_ino
    assert initialize_dataset(str(source), root) == first
    assert (tmp_path / "workspace" / first.path / "rows.jsonl").stat().st_ino == inode
    write(source, "rows.jsonl", content=ROWS * 2)
    second = initialize_dataset(str(source), root)
    assert second.revision != first.revision
    assert published(tmp_path / "workspace") == sorted([first.key, second.key])


def nothing(root: Path) -> Path:
    return root / "absent"


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "absent": (nothing, "a file or directory that exists"),
    "empty file": (lambda root: write(root, "rows.jsonl", content="") / "rows.jsonl", "empty files: rows.jsonl"),
    "one empty file": (lambda root: write(write(root, "a.json"), "b.json", content=""), "empty files: b.json"),
    "empty folder": (write, "which has no file of the wanted kinds"),
    "folder of others": (lambda root: write(root, "a.md", "b.bin"), "files like *.json, *.jsonl, *.csv, *.parquet"),
    "wrong ending": (lambda root: write(root, "rows.xlsx") / "rows.xlsx", "a file that ends with .xlsx"),
    "no ending": (lambda root: write(root, "rows") / "rows", "a file that ends with nothing"),
    "pattern of none": (lambda root: write(root, "a.json") / "b-*.json", "matches nothing of what is there: 'a.json';"),
    "pattern in an absent folder": (lambda root: root / "*.json", "a file or directory that exists"),
    "pattern of others": (lambda root: write(root, "a.md") / "*.md", "which has no file of the wanted kinds"),
    "mixed formats": (lambda root: write(root, "a.json", "b.csv"), "files of the formats csv, json"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_source_is_one_problem_and_nothing_is_published(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    source = make(tmp_path / "from")
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            initialize_dataset(str(source), str(tmp_path / "workspace"))
        assert len(caught.value.problems) == 1
        assert "dataset: given" in str(caught.value) and message in str(caught.value)
        assert published(tmp_path / "workspace") == []


def test_the_component_leaves_the_manifest_and_its_metadata(tmp_path: Path) -> None:
    source = write(tmp_path / "from", "rows.jsonl")
    artifact = dsl.Dataset(name="dataset", uri=str(tmp_path / "artifact"))
    report = dsl.HTML(name="report", uri=str(tmp_path / "report"))
    metrics = dsl.Metrics(name="metrics", uri=str(tmp_path / "metrics"))
    component.python_func(str(source), artifact, report, metrics, workspace=str(tmp_path / "workspace"))
    manifest = recall_manifest(artifact)
    assert manifest == read_manifest(tmp_path / "workspace" / manifest.path)
    assert artifact.metadata == {
        "source": str(source),
        "revision": manifest.revision,
        "path": manifest.path,
        "bytes": manifest.size,
        "files": 2,
        **{name: str(value) for name, value in manifest.facts.items()},
    }
    assert metrics.metadata == {"rows": 3, "duplicates": 2, "rows_with_empty_values": 0, "bytes": manifest.size}
    assert "Equal to an earlier row" in Path(report.path).read_text()
    json.dumps(artifact.metadata)


RUN = """
import sys
from kfp import dsl
from kfp_finetune.components.initialize_dataset.component import initialize_dataset
uri, artifact, workspace = sys.argv[1:]
outputs = {"dataset": dsl.Dataset(uri=artifact), "report": dsl.HTML(), "metrics": dsl.Metrics()}
initialize_dataset.python_func(uri=uri, workspace=workspace, **outputs)
"""


def test_the_component_ends_with_status_2_and_the_message_alone(tmp_path: Path) -> None:
    places = [str(tmp_path / name) for name in ("absent", "artifact", "workspace")]
    done = subprocess.run([sys.executable, "-c", RUN, *places], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: 1 problem with what was given:\n  - dataset: given {tmp_path}/absent;")
    assert len(done.stderr.splitlines()) == 3
    assert not (tmp_path / "artifact").exists()


def test_a_published_dataset_that_lost_a_file_is_fetched_again(tmp_path: Path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"input": "a", "output": "b"}\n')
    manifest = initialize_dataset(str(source), str(tmp_path / "workspace"))
    published = tmp_path / "workspace" / manifest.path / "rows.jsonl"
    published.unlink()
    assert initialize_dataset(str(source), str(tmp_path / "workspace")) == manifest
    assert published.read_text() == source.read_text()


LARGE = LARGEST_ROW_BYTES + 1000

TOO_LARGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a line": ("line 2", lambda path: path.write_text('{"a": "b"}\n{"a": "' + "x" * LARGE + '"}\n')),
    "a line without an end": ("line 1", lambda path: path.write_bytes(b"\0" * 10 * LARGE)),
    "an element": ("line 2", lambda path: path.write_text('[{"a": "b"},\n{"a": "' + "x" * 3 * LARGE + '"}]')),
    "an object": ("line 1", lambda path: path.write_text('{\n"a": "' + "x" * 3 * LARGE + '"}')),
    "a cell": ("line 2", lambda path: path.write_text('a,b\n"' + "x\n" * LARGE + '",b\n')),
    "an open quote": ("line 3", lambda path: path.write_text("a,b\nc,d\n" + '"' + "x\n" * LARGE)),
    "a line of text": ("line 1", lambda path: path.write_text("x" * LARGE)),
    "a document": ("the whole file", lambda path: path.write_text(f"<a>{'x' * LARGE}</a>")),
}
NAMES = dict(zip(TOO_LARGE, ["jsonl", "jsonl", "json", "json", "csv", "csv", "txt", "xml"], strict=True))


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_a_row_that_is_too_large_is_one_clear_problem_in_the_report_and_when_it_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    place, make = TOO_LARGE[kind]
    source = tmp_path / f"rows.{NAMES[kind]}"
    make(source)
    manifest = initialize_dataset(str(source), str(tmp_path / "workspace"))
    directory = tmp_path / "workspace" / manifest.path
    said = f"{source.name}, {place}, a row of more than 16,777,216 bytes; allowed: rows of at most 16,777,216 bytes"
    assert said in capfd.readouterr().out and said in (directory / FETCH_REPORT_NAME).read_text()
    assert manifest.facts["all_rows"] is False
    with pytest.raises(UserError, match=re.escape(said)), open_split(directory, "train"):
        pytest.fail("the row was read")


def wide_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{f"c{number}": 1 for number in range(10_001)}]), path)


WIDE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "header": ("csv", lambda path: path.write_text(",".join(map(str, range(500_000))) + "\n" + "," * 499_999 + "\n")),
    "object": ("jsonl", lambda path: path.write_text(json.dumps({str(number): 1 for number in range(500_000)}))),
    "all": ("jsonl", lambda path: path.write_text("".join(f'{{"{number}": 1}}\n' for number in range(10_001)))),
    "schema": ("parquet", wide_parquet),
}


@pytest.mark.parametrize("kind", WIDE)
def test_rows_of_more_columns_than_rows_have_are_one_problem_in_the_report_and_when_they_are_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    ending, make = WIDE[kind]
    source = tmp_path / f"rows.{ending}"
    make(source)
    manifest = initialize_dataset(str(source), str(tmp_path / "workspace"))
    said = re.compile(r"(10,001|500,000) columns")
    assert said.search(capfd.readouterr().out) and manifest.facts["all_rows"] is False
    with pytest.raises(UserError, match=said), open_split(tmp_path / "workspace" / manifest.path, "train"):
        pytest.fail("the rows were read")


def test_a_name_twice_among_very_many_is_found(tmp_path: Path) -> None:
    names = [*map(str, range(500_000)), "499999"]
    (tmp_path / "rows.jsonl").write_text("{" + ", ".join(f'"{name}": 1' for name in names) + "}")
    with pytest.raises(UserError, match="the name '499999' twice in an object"), open_split(tmp_path, "train"):
        pytest.fail("the row was read")


@pytest.mark.parametrize("make", [one_value_for_all_rows, one_huge_list])
def test_a_small_file_that_stands_for_gigabytes_is_said_and_takes_little_memory(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], make: Callable[[Path], None]
) -> None:
    make(tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").stat().st_size < 100_000
    manifest = initialize_dataset(str(tmp_path / "rows.parquet"), str(tmp_path / "workspace"))
    said = "rows.parquet: rows that need more than 536,870,912 bytes of memory to look at; allowed: less. Write smaller"
    assert said in capfd.readouterr().out
    assert manifest.facts["rows"] == 0 and manifest.facts["all_rows"] is False


def test_the_look_takes_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    source = tmp_path / "rows.json"
    with source.open("w") as file:
        file.write('[{"a": "b"}')
        for _ in range(500):
            file.write(f',{{"a": "{"x" * 1_000_000}"}}')
        file.write("]")
    code = f"""
import resource
from pathlib import Path
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
manifest = initialize_dataset({str(source)!r}, {str(tmp_path / "workspace")!r})
ours = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(manifest.facts["rows"], ours.split()[1], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows, *peaks = map(int, done.stdout.splitlines()[-1].split())
    assert rows == 501 and max(peaks) < 300_000


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_rows_of_some_megabytes_are_looked_at(tmp_path: Path, ending: str) -> None:
    text = random.Random(1).randbytes(6_000_000).hex()
    table = pyarrow.table({"input": [text[number:] for number in range(50)]})
    if ending == "parquet":
        pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", use_dictionary=False, write_batch_size=1)
    else:
        with pyarrow.ipc.new_stream(tmp_path / "rows.arrow", table.schema) as stream:
            stream.write_table(table)
    manifest = initialize_dataset(str(tmp_path / f"rows.{ending}"), str(tmp_path / "workspace"))
    assert (manifest.facts["rows"], manifest.facts["all_rows"]) == (50, True)


def test_patterns_and_keep_reach_the_volume_through_the_component(tmp_path: Path) -> None:
    source = write(tmp_path / "from", "a.jsonl", "b.jsonl", "c.jsonl")
    root = tmp_path / "workspace"

    def run(**given: object) -> Manifest:
        artifact = dsl.Dataset(uri=str(tmp_path / "artifact"))
        outputs = {"dataset": artifact, "report": dsl.HTML(uri=str(tmp_path / "r")), "metrics": dsl.Metrics()}
        component.python_func(str(source), workspace=str(root), **outputs, **given)
        return recall_manifest(artifact)

    old = run()
    os.utime(root / old.path / MANIFEST_NAME, (0, 0))
    chosen = run(allow_patterns=["[ab].*"], ignore_patterns=["b.*"], keep=1)
    assert names(chosen) == ["a.jsonl"]
    assert published(root) == [chosen.key]
