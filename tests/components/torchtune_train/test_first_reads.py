"""Who reads a model's weights when a training starts."""

from pathlib import Path

import pytest
import torch
from given import start
from many import train_each
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from torchtune.training.checkpointing import _checkpointer

from kfp_finetune.components.torchtune_train.first_reads import read_in_first_process, shapes

SAVED = {
    "a": torch.ones(3, 5, dtype=torch.bfloat16),
    "b": torch.ones(7),
    "scale": torch.ones((), dtype=torch.float16),
}


def write(directory: Path) -> Path:
    path = directory / "model.safetensors"
    save_file(SAVED, path, metadata={"format": "pt"})
    return path


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_checkpointer, "safe_torch_load", _checkpointer.safe_torch_load)


def test_shapes_are_the_file_s_without_its_values(tmp_path: Path) -> None:
    found = shapes(write(tmp_path))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in SAVED.items()
    }
    assert all(tensor.untyped_storage().nbytes() == tensor.element_size() for tensor in found.values())


@pytest.mark.parametrize(
    ("rank", "method", "tensor_parallel_dim", "reads"),
    [
        (0, "full", 1, True),
        (1, "full", 1, False),
        (7, "lora", 1, False),
        (1, "dora", 1, False),
        (1, "qlora", 1, True),
        (1, "qdora", 1, True),
        (1, "full", 2, True),
    ],
)
def test_all_but_the_first_process_read_only_what_nobody_hands_them(
    rank: int, method: str, tensor_parallel_dim: int, reads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", str(rank))
    read_in_first_process(method, DictConfig({"tensor_parallel_dim": tensor_parallel_dim}))
    loaded = _checkpointer.safe_torch_load(write(tmp_path))
    assert all(bool(tensor.any()) == reads for tensor in loaded.values())
    torch.save({"epochs_run": 1}, tmp_path / "recipe_state.pt")
    assert _checkpointer.safe_torch_load(tmp_path / "recipe_state.pt", mmap=False) == {"epochs_run": 1}


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_every_process_gets_the_weights_bit_for_bit(family: str, tmp_path: Path) -> None:
    found = start(tmp_path, family, hidden_size=256, num_attention_heads=4, num_key_value_heads=2)
    one_step = {"max_steps_per_epoch": 1, "warmup_ratio": 0.0}
    plans = [
        found.plan(method=method, num_procs_per_node=2, batch_size=2, learning_rate=1e-38, advanced=one_step).plan
        for method in ("full", "qlora", "lora")
    ]
    assert not train_each([found.root / plan.training for plan in plans], procs=2)
    base = read_all(found.root / plans[0].model)
    for plan in plans:
        trained = read_all(found.root / plan.training / "epoch_0")
        if plan.method == "qlora":
            assert all(bool(tensor.any()) for tensor in trained.values())
        else:
            assert all(torch.equal(trained[name], base[name]) for name in trained if base[name].any()), plan.method


def read_all(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in directory.glob("*.safetensors") for name, tensor in load_file(path).items()}
