"""A model from the Hub: what is taken, what is said about it, and what must be asked for."""

import json
import os
from pathlib import Path

import numpy
import pytest
from kfp import dsl
from safetensors.numpy import save
from servers.hub import Hub

from kfp_finetune.artifacts import recall_manifest
from kfp_finetune.components.initialize_model.component import initialize_model as component
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.errors import UserError
from kfp_finetune.manifests import MANIFEST_NAME, Manifest
from kfp_finetune.workspace import FETCH_REPORT_NAME

README = "---\nlicense: apache-2.0\n---\n# A model <b>\n"
WEIGHTS = {"a": numpy.ones((30, 20), numpy.float32), "b": numpy.ones(7, numpy.float16)}
MODEL = {
    "config.json": json.dumps({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 20}),
    "tokenizer.json": "{}",
    "model.safetensors": save(WEIGHTS),
    "pytorch_model.bin": b"\x80\x02",
    "onnx/model.safetensors": save(WEIGHTS),
    "README.md": README,
    "LICENSE": "Apache",
}


def names(root: Path, path: str) -> list[str]:
    return sorted(entry.name for entry in (root / path).iterdir())


def test_a_model_is_taken_without_pickles_and_its_licence_and_size_are_said(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("model", "org/model", MODEL)
    manifest = initialize_model("org/model@main", str(tmp_path))
    taken = ["LICENSE", "config.json", "model.safetensors", "tokenizer.json"]
    assert names(tmp_path, manifest.path) == [FETCH_REPORT_NAME, "LICENSE", "MANIFEST.json", *taken[1:]]
    assert [file.path for file in manifest.files] == [FETCH_REPORT_NAME, *taken]
    assert manifest.revision == commit
    assert manifest.facts == {
        "model_type": "qwen2",
        "architecture": "Qwen2ForCausalLM",
        "license": "apache-2.0",
        "dtypes": ["F16", "F32"],
        "parameters": 607,
    }
    report = (tmp_path / manifest.path / FETCH_REPORT_NAME).read_text()
    for fact in ("apache-2.0", "Qwen2ForCausalLM", "607", "600", commit, "model.safetensors"):
        assert fact in report


def test_pickles_are_taken_if_they_are_asked_for_by_name(hub: Hub, tmp_path: Path) -> None:
    hub.add("model", "bert", {name: MODEL[name] for name in ("config.json", "tokenizer.json", "pytorch_model.bin")})
    with pytest.raises(UserError, match="are not taken unless allow_patterns names them"):
        initialize_model("bert", str(tmp_path))
    assert hub.bodies() == []
    manifest = initialize_model("bert", str(tmp_path), allow_patterns=["*.json", "*.bin"])
    assert "pytorch_model.bin" in names(tmp_path, manifest.path)
    assert manifest.facts["license"] == "" and manifest.facts["parameters"] == 0


@pytest.mark.parametrize("pattern", ["*", "*.b*", "pytorch_model*"])
def test_pickles_are_not_taken_by_a_pattern_that_says_nothing_of_them(hub: Hub, tmp_path: Path, pattern: str) -> None:
    hub.add("model", "org/model", MODEL)
    chosen = ["config.json", "tokenizer.json", "*.safetensors", pattern]
    manifest = initialize_model("org/model", str(tmp_path), allow_patterns=chosen)
    assert "pytorch_model.bin" not in names(tmp_path, manifest.path)


def test_patterns_and_keep_reach_the_volume_through_the_component(hub: Hub, tmp_path: Path) -> None:
    hub.add("model", "org/model", MODEL)
    outputs = {"report": dsl.HTML(uri=str(tmp_path / "report")), "metrics": dsl.Metrics()}

    def run(**given: object) -> Manifest:
        artifact = dsl.Model(uri=str(tmp_path / "artifact"))
        component.python_func("org/model", workspace=str(tmp_path / "workspace"), model=artifact, **outputs, **given)
        return recall_manifest(artifact)

    old = run()
    os.utime(tmp_path / "workspace" / old.path / MANIFEST_NAME, (0, 0))
    chosen = run(allow_patterns=["*.json", "*.safetensors"], ignore_patterns=["onnx/*"], keep=1)
    assert chosen.key != old.key
    assert {file.path for file in chosen.files} == {FETCH_REPORT_NAME, "config.json", "model.safetensors"} | {
        "tokenizer.json"
    }
    found = [path.name for path in (tmp_path / "workspace" / "models").iterdir() if path.is_dir()]
    assert found == [chosen.key]


LEVELS = "\n".join(f"a{level}: &a{level} [{f'*a{level - 1}, ' * 10}]" for level in range(1, 7))
MERGES = "\n".join(f"a{level}: &a{level} {{<<: [{f'*a{level - 1}, ' * 10}]}}" for level in range(1, 7))
HOSTILE = {
    "aliases": (f"a0: &a0 [x]\n{LEVELS}\nlicense: *a6", ""),
    "merges": (f"a0: &a0 {{license: x}}\n{MERGES}\n<<: *a6", ""),
    "deep": (f"license: {'[' * 100_000}{']' * 100_000}", ""),
    "digits": (f"license: {'9' * 100_000}", "9" * 200),
    "long": (f"license: other\nlicense_name: {'x' * 300}", "x" * 200),
    "large": (f"license: mit\nother: {'x' * 2**21}", ""),
    "list": ("license: [mit, apache-2.0]", ""),
    "null": ("license: null", ""),
    "not closed": ("license: [mit", ""),
    "no mapping": ("- license", ""),
}


@pytest.mark.parametrize(("head", "expected"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_licence_is_a_short_text_whatever_the_readme_holds(
    hub: Hub, tmp_path: Path, head: str, expected: str
) -> None:
    hub.add("model", "org/model", MODEL | {"README.md": f"---\n{head}\n---\n# A model\n"})
    assert initialize_model("org/model", str(tmp_path)).facts["license"] == expected


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_note_that_is_too_large_to_be_one_is_refused_and_not_read(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.add("model", "org/model", MODEL | {name: b" " * (64 * 2**20 + 1)})
    with pytest.raises(UserError, match=f"{name} of 67,108,865 bytes; allowed: at most 67,108,864 bytes"):
        initialize_model("org/model", str(tmp_path))


def test_what_a_model_lacks_is_said_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.add("model", "org/model", {"README.md": README, "notes.txt": "x"})
    with pytest.raises(UserError, match="3 problems"):
        initialize_model("org/model", str(tmp_path))
    assert hub.bodies() == []
