"""initialize_dataset: whole files and true facts for good sources, one message and nothing published for bad ones."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp import dsl

from kfp_finetune.artifacts import recall_manifest
from kfp_finetune.components.initialize_dataset.component import initialize_dataset as component
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.errors import UserError
from kfp_finetune.workspace import FETCH_REPORT_NAME, Manifest, describe_files, read_manifest

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
    assert manifest.files == describe_files(directory)
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
    "pattern of none": (lambda root: write(root, "a.json") / "b-*.json", "which has no file of the wanted kinds"),
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
