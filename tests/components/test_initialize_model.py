"""initialize_model: whole files and true facts for good models, every problem at once and nothing published for bad."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from kfp import dsl
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from kfp_finetune.artifacts import recall_manifest
from kfp_finetune.components.initialize_model.component import initialize_model as component
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.errors import UserError
from kfp_finetune.manifests import describe_files, read_manifest
from kfp_finetune.workspace import FETCH_REPORT_NAME

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def write_model(root: Path) -> Path:
    """A model's folder with weights in two files, as transformers saves it."""
    root.mkdir(parents=True)
    (root / "config.json").write_text(json.dumps({"model_type": "qwen2", "hidden_size": 4}))
    (root / "generation_config.json").write_text("{}")
    Tokenizer(models.BPE()).save(str(root / "tokenizer.json"))
    save_file({"embed": numpy.ones((10, 4), numpy.float32), "bias": numpy.ones((), numpy.float16)}, root / SHARDS[0])
    save_file({"head": numpy.ones((4, 3), numpy.float16)}, root / SHARDS[1])
    weight_map = {"embed": SHARDS[0], "bias": SHARDS[0], "head": SHARDS[1]}
    (root / INDEX).write_text(json.dumps({"metadata": {"total_size": 186}, "weight_map": weight_map}))
    return root


def published(workspace: Path) -> list[str]:
    """Everything below models/ but lock files."""
    return sorted(path.name for path in (workspace / "models").glob("*") if path.suffix != ".lock")


def test_a_model_is_published_whole_with_its_facts(tmp_path: Path) -> None:
    source = write_model(tmp_path / "from")
    unwanted = ["pytorch_model.bin", "onnx/model.safetensors", ".gitattributes", "modeling_own.py", "image.png"]
    for name in [*unwanted, "consolidated.safetensors"]:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("x")
    manifest = initialize_model(str(source), str(tmp_path / "workspace"))
    directory = tmp_path / "workspace" / manifest.path
    assert manifest.kind == "model" and manifest.path == f"models/{manifest.key}"
    assert manifest.facts == {
        "model_type": "qwen2",
        "architecture": "",
        "license": "",
        "dtypes": ["F16", "F32"],
        "parameters": 40 + 1 + 12,
    }
    names = [FETCH_REPORT_NAME, "config.json", "generation_config.json", *SHARDS, INDEX, "tokenizer.json"]
    assert [file.path for file in manifest.files] == names
    assert [replace(file, verified="") for file in manifest.files] == list(describe_files(directory))
    for name in names[1:]:
        assert (directory / name).read_bytes() == (source / name).read_bytes()
    assert read_manifest(directory) == manifest


def test_a_second_call_reuses_what_is_there_and_a_changed_weight_does_not(tmp_path: Path) -> None:
    source, root = write_model(tmp_path / "from"), str(tmp_path / "workspace")
    first = initialize_model(str(source), root)
    inode = (tmp_path / "workspace" / first.path / SHARDS[0]).stat().st_ino
    moved = shutil.move(source, tmp_path / "moved")
    assert initialize_model(str(moved), root) == first
    assert (tmp_path / "workspace" / first.path / SHARDS[0]).stat().st_ino == inode
    save_file({"head": numpy.zeros((4, 3), numpy.float16)}, Path(moved) / SHARDS[1])
    second = initialize_model(str(moved), root)
    assert published(tmp_path / "workspace") == sorted([first.key, second.key])


def test_a_published_model_can_be_given_again(tmp_path: Path) -> None:
    first = initialize_model(str(write_model(tmp_path / "from")), str(tmp_path / "workspace"))
    again = initialize_model(str(tmp_path / "workspace" / first.path), str(tmp_path / "workspace"))
    assert again == first


def without(*names: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for name in names:
            (root / name).unlink()

    return change


def replacing(name: str, content: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).write_text(content)

    return change


def only_pickles(root: Path) -> None:
    without(*SHARDS, INDEX)(root)
    (root / "pytorch_model.bin").write_bytes(b"\x80\x02")


def truncate(root: Path) -> None:
    data = (root / SHARDS[0]).read_bytes()
    (root / SHARDS[0]).write_bytes(data[:-1])


def everything_at_once(root: Path) -> None:
    without("config.json", "tokenizer.json", *SHARDS)(root)


def damaged_twice(root: Path) -> None:
    truncate(root)
    replacing("config.json", "{")(root)


def index_naming(name: object) -> Callable[[Path], None]:
    return replacing(INDEX, json.dumps({"weight_map": {"embed": SHARDS[0], "other": name}}))


BAD: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "absent": (shutil.rmtree, ["a file or directory that exists"]),
    "empty folder": (lambda root: [path.unlink() for path in root.iterdir()], ["no file of the wanted kinds"]),
    "no config": (without("config.json"), ["without config.json"]),
    "no weights": (without(*SHARDS), ["without weights"]),
    "only pickles": (only_pickles, ["without weights; allowed: *.safetensors (pickled .bin"]),
    "no tokenizer": (without("tokenizer.json"), ["without a tokenizer"]),
    "all three": (everything_at_once, ["without config.json", "without weights", "without a tokenizer"]),
    "config broken": (replacing("config.json", '{"model_type":'), ["a config.json that is not JSON"]),
    "config no object": (replacing("config.json", "[]"), ["a config.json that is no object"]),
    "config empty": (replacing("config.json", ""), ["a config.json that is not JSON"]),
    "weights truncated": (truncate, [f"{SHARDS[0]}, which is damaged"]),
    "weights empty": (replacing(SHARDS[1], ""), [f"{SHARDS[1]}, which is damaged"]),
    "weights are a page": (replacing(SHARDS[1], "<html>not found</html>"), [f"{SHARDS[1]}, which is damaged"]),
    "weights and config": (damaged_twice, ["a config.json that is not JSON", f"{SHARDS[0]}, which is damaged"]),
    "absent shard": (without(SHARDS[1]), [f"weights without {SHARDS[1]}"]),
    "shard elsewhere": (index_naming(f"sub/{SHARDS[1]}"), [f"weights without sub/{SHARDS[1]}"]),
    "shard outside": (index_naming(f"../{SHARDS[1]}"), [f"weights without ../{SHARDS[1]}"]),
    "shard no name": (index_naming(5), ["weights without 5"]),
    "shard no weights": (index_naming("config.json"), ["weights without config.json"]),
    "index broken": (replacing(INDEX, "{"), [f"{INDEX} that cannot be read"]),
    "index empty": (replacing(INDEX, "{}"), [f"{INDEX} that cannot be read"]),
    "index a list": (replacing(INDEX, '{"weight_map": []}'), [f"{INDEX} that cannot be read"]),
}


@pytest.mark.parametrize(("spoil", "messages"), BAD.values(), ids=BAD.keys())
def test_a_bad_model_is_one_message_with_every_problem_and_nothing_is_published(
    tmp_path: Path, spoil: Callable[[Path], object], messages: list[str]
) -> None:
    source = write_model(tmp_path / "from")
    spoil(source)
    with pytest.raises(UserError) as caught:
        initialize_model(str(source), str(tmp_path / "workspace"))
    assert len(caught.value.problems) == len(messages)
    assert all(problem.what == "model" for problem in caught.value.problems)
    for message in messages:
        assert message in str(caught.value)
    assert published(tmp_path / "workspace") == []


def test_a_folder_with_nothing_wanted_but_text_is_told_all_three(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="3 problems") as caught:
        initialize_model(str(tmp_path), str(tmp_path / "workspace"))
    assert len(caught.value.problems) == 3


def test_the_component_leaves_the_manifest_and_its_metadata(tmp_path: Path) -> None:
    source = write_model(tmp_path / "from")
    artifact = dsl.Model(name="model", uri=str(tmp_path / "artifact"))
    report = dsl.HTML(name="report", uri=str(tmp_path / "report"))
    metrics = dsl.Metrics(name="metrics", uri=str(tmp_path / "metrics"))
    component.python_func(str(source), artifact, report, metrics, workspace=str(tmp_path / "workspace"))
    manifest = recall_manifest(artifact)
    assert manifest == read_manifest(tmp_path / "workspace" / manifest.path)
    assert artifact.metadata["model_type"] == "qwen2" and artifact.metadata["parameters"] == "53"
    assert artifact.metadata["bytes"] == manifest.size and artifact.metadata["files"] == 7
    assert metrics.metadata == {"parameters": 53, "bytes": manifest.size}
    assert "qwen2" in Path(report.path).read_text()


RUN = """
import sys
from kfp import dsl
from kfp_finetune.components.initialize_model.component import initialize_model
uri, artifact, workspace = sys.argv[1:]
outputs = {"model": dsl.Model(uri=artifact), "report": dsl.HTML(), "metrics": dsl.Metrics()}
initialize_model.python_func(uri=uri, workspace=workspace, **outputs)
"""


def test_the_component_ends_with_status_2_and_the_message_alone(tmp_path: Path) -> None:
    everything_at_once(write_model(tmp_path / "from"))
    places = [str(tmp_path / name) for name in ("from", "artifact", "workspace")]
    done = subprocess.run([sys.executable, "-c", RUN, *places], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 3 problems with what was given:\n  - model: given ")
    assert len(done.stderr.splitlines()) == 7
    assert not (tmp_path / "artifact").exists()
