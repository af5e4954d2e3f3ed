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
from kfp_finetune.components.initialize_model.origin import origin_of
from kfp_finetune.components.initialize_model.start import choose_start
from kfp_finetune.errors import UserError
from kfp_finetune.manifests import MANIFEST_NAME, Manifest, describe_files, is_intact, read_manifest
from kfp_finetune.workspace import FETCH_REPORT_NAME, Workspace, point_latest

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


def test_a_model_of_pictures_has_an_image_processor_in_a_tokenizer_s_place(tmp_path: Path) -> None:
    source = write_model(tmp_path / "from")
    (source / "tokenizer.json").rename(source / "preprocessor_config.json")
    manifest = initialize_model(str(source), str(tmp_path / "workspace"))
    assert "preprocessor_config.json" in [file.path for file in manifest.files]


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
    "no tokenizer": (
        without("tokenizer.json"),
        ["without a tokenizer; allowed: one of tokenizer.json, tokenizer.model, vocab.json, vocab.txt, or prep"],
    ),
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
    published = read_manifest(tmp_path / "workspace" / manifest.path)
    facts = {**published.facts, "origin": str(source), "start_from": "model"}
    assert manifest == replace(published, facts=facts)
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


def publish_export(workspace: Path, origin: str, key: str = "exp") -> Manifest:
    """An export that a series points to, as export_model leaves it."""
    directory = workspace / "exports" / key
    write_model(directory / "merged")
    (directory / "report.html").write_text("of the evaluation")
    facts = {"origin": origin, "work": "w", "license": "mit"} if origin else {}
    source = origin or str(workspace.parent / "from")
    manifest = Manifest("export", key, source, "r", f"exports/{key}", describe_files(directory), facts)
    (directory / MANIFEST_NAME).write_text(manifest.to_json())
    point_latest(Workspace(workspace), "series", directory)
    return manifest


@pytest.mark.parametrize("is_old", [False, True], ids=["with its origin", "of a version that kept none"])
def test_a_series_goes_on_from_its_newest_export_where_it_lies(tmp_path: Path, is_old: bool) -> None:
    workspace, uri = tmp_path / "workspace", str(tmp_path / "from")
    export = publish_export(workspace, "" if is_old else uri)
    start = choose_start(uri, str(workspace), start_from="latest", name="series")
    merged = workspace / "exports/exp/merged"
    assert start.model.path == "exports/exp/merged" and start.model.source == str(merged)
    assert start.model.kind == "model" and start.model.revision == "exp"
    assert start.model.files == describe_files(merged)
    hold = start.model.facts["hold"]
    assert start.model.facts == {
        "model_type": "qwen2",
        "architecture": "",
        "license": "" if is_old else "mit",
        "dtypes": ["F16", "F32"],
        "parameters": 53,
        "origin": uri,
        "start_from": "latest",
        "hold": hold,
    }
    assert (workspace / "exports" / hold).exists()
    assert is_intact(workspace / "exports/exp", export), "a published export was changed"
    assert not (workspace / "models").exists()
    for fact in (uri, "exp", "qwen2", SHARDS[0]):
        assert fact in start.page
    other = publish_export(workspace, uri, "other")
    assert choose_start(uri, str(workspace), start_from="latest", name="series").model.revision == other.key
    assert choose_start(uri, str(workspace), start_from="latest", name="series").model.key != start.model.key


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"start_from": "model", "name": "series"}, ""),
        ({"start_from": "latest", "name": "new"}, "series new has no export yet: it begins with"),
        ({"start_from": "latest", "name": "series"}, "descends from hf://org/other: it begins anew with"),
    ],
)
def test_a_series_without_an_export_of_the_model_begins_with_the_model(
    tmp_path: Path, settings: dict[str, str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    workspace, uri = tmp_path / "workspace", str(write_model(tmp_path / "from"))
    publish_export(workspace, "hf://org/other")
    start = choose_start(uri, str(workspace), **settings)
    assert start.model.path == f"models/{start.model.key}"
    assert start.model.facts["origin"] == uri and "hold" not in start.model.facts
    assert start.page == (workspace / start.model.path / FETCH_REPORT_NAME).read_text()
    assert said in capfd.readouterr().out
    assert not list((workspace / "exports").glob(".hold-*"))


def test_a_misspelt_start_is_one_message_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        choose_start("/nowhere", str(tmp_path), start_from="newest")
    (problem,) = caught.value.problems
    assert str(problem).startswith("start_from: given 'newest'; allowed: 'model' or 'latest'.")


def test_a_newest_export_that_is_not_whole_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    publish_export(tmp_path, "hf://org/model")
    (tmp_path / "exports/exp/merged" / SHARDS[0]).unlink()
    with pytest.raises(UserError, match="exports/exp, which has not all its files"):
        choose_start("hf://org/model", str(tmp_path), start_from="latest", name="series")


SAME = [
    ["hf://org/model", "org/model", "org/model@main", "hf://models/org/model", "HF://org/model"],
    ["hf://org/model@v2", "org/model@v2"],
    ["hf://org/other"],
    ["hf://org/model/sub"],
    ["bert"],
    ["s3://bucket/prefix", "s3://bucket/prefix/", "S3://bucket/prefix"],
    ["s3://bucket"],
    ["s3://bucket/prefix/other"],
    ["/data/model", "/data/model/", "file:///data/model", "/data/./other/../model"],
]


def test_addresses_of_one_model_are_the_same_origin_and_no_others() -> None:
    origins = [{origin_of(uri) for uri in uris} for uris in SAME]
    assert [len(same) for same in origins] == [1] * len(SAME)
    assert len(set.union(*origins)) == len(SAME)
