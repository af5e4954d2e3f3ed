"""Weights lie in files of the size that was asked for, and are the same weights."""

import json
import weakref
from pathlib import Path

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from kfp_finetune.components.export_model.shards import reshard, write_shards

MEGABYTE = 10**6
INDEX = "model.safetensors.index.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of five megabytes in one file."""
    return tiny.write_model(tmp_path / "model", "qwen2", hidden_size=256, intermediate_size=512)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("size", [MEGABYTE, 2_300_000])
def test_no_file_is_larger_and_the_index_tells_which_holds_what(model: Path, size: int):
    before = tensors(model)
    assert reshard(model, size)
    files = sorted(model.glob("*.safetensors"))
    count = len(files)
    assert count >= 5_000_000 // size and max(path.stat().st_size for path in files) <= size
    assert [path.name for path in files] == [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    index = json.loads((model / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in before.values())
    assert index["weight_map"] == {name: path.name for path in files for name in load_file(path)}
    after = tensors(model)
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    for path in files:
        with safe_open(path, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
    loaded, info = AutoModelForCausalLM.from_pretrained(model, output_loading_info=True)
    assert not any(info.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.state_dict().items() if name in before)
    assert not [path.name for path in model.iterdir() if path.name.startswith(".")]


def test_a_tensor_that_is_larger_has_a_file_of_its_own(tmp_path: Path):
    model = tiny.write_model(tmp_path / "model", "qwen2", hidden_size=128, vocab_size=4000)
    assert reshard(model, MEGABYTE)
    large = [path for path in model.glob("*.safetensors") if path.stat().st_size > MEGABYTE]
    assert [list(load_file(path)) for path in large] == [["model.embed_tokens.weight"]]
    assert AutoModelForCausalLM.from_pretrained(model).lm_head.weight.shape == (4000, 128)


def test_files_that_keep_to_it_are_left_alone(model: Path):
    before = {path.name: path.stat().st_ino for path in model.iterdir()}
    assert not reshard(model, 6 * MEGABYTE)
    assert {path.name: path.stat().st_ino for path in model.iterdir()} == before
    assert reshard(model, MEGABYTE)
    shards = {path.name: path.stat().st_ino for path in model.iterdir()}
    assert not reshard(model, MEGABYTE)
    assert {path.name: path.stat().st_ino for path in model.iterdir()} == shards


def test_many_small_files_become_one_without_an_index(model: Path, tmp_path: Path):
    reshard(model, MEGABYTE)
    weights = tensors(model)
    sizes = {name: tensor.nbytes for name, tensor in weights.items()}
    (tmp_path / "one").mkdir()
    write_shards("shards", tmp_path / "one", sizes, lambda name: {name: weights[name]})
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["model.safetensors"]


def test_the_tensors_of_one_file_at_most_are_in_memory(tmp_path: Path):
    alive: dict[str, int] = {}
    most = 0

    def read(name: str) -> dict[str, torch.Tensor]:
        nonlocal most
        tensor = torch.zeros(50_000)
        alive[name] = tensor.nbytes
        weakref.finalize(tensor, alive.pop, name)
        most = max(most, sum(alive.values()))
        return {name: tensor}

    names = [f"layers.{n}.weight" for n in range(40)]
    write_shards("shards", tmp_path, dict.fromkeys(names, 200_000), read, MEGABYTE)
    assert len(list(tmp_path.glob("*.safetensors"))) == 10
    assert most <= MEGABYTE
