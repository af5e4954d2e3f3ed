"""Every family goes the whole way: planned, trained with torchtune's recipe, exported, and the export is proven."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from given import Given, start
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from kfp_finetune.components.export_model.export import export
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.errors import UserError
from kfp_finetune.metrics import read_metrics
from kfp_finetune.training.plan import Plan

LLAMA_2 = {
    "tie_word_embeddings": False,
    "num_key_value_heads": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
TRAININGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Llama 2, lora": ("llama", "lora", LLAMA_2),
    "Mistral, lora": ("mistral", "lora", {}),
    "Qwen 3, lora": ("qwen3", "lora", {}),
    "Qwen 3, dora": ("qwen3", "dora", {"tie_word_embeddings": False}),
    "Qwen 3, full": ("qwen3", "full", {}),
    "Gemma, lora": ("gemma", "lora", {}),
    "Gemma 2, lora": ("gemma2", "lora", {}),
    "Gemma 2, full": ("gemma2", "full", {}),
    "Phi-4, lora": ("phi3", "lora", {}),
    "Phi-4, full": ("phi3", "full", {}),
}
LONGER = {"Gemma 2, full"}
"""Trained for two epochs."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Given, Plan]]:
    known: dict[str, tuple[Given, Plan]] = {}

    def get(name: str) -> tuple[Given, Plan]:
        if name not in known:
            family, method, changes = TRAININGS[name]
            found = start(tmp_path_factory.mktemp("trained"), family, **changes)
            plan = found.plan(method=method, epochs=1 + (name in LONGER)).plan
            train(plan, str(found.root))
            known[name] = found, plan
        return known[name]

    return get


@torch.inference_mode()
def loss(model: Path, tokens: Path) -> float:
    """Transformers' own, over the rows that were trained on."""
    module, info = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    total, count = 0.0, 0
    for row in datasets.load_from_disk(str(tokens)):
        tokens, labels = torch.tensor([row["tokens"]]), torch.tensor([row["labels"]])
        targets = int((labels[:, 1:] != -100).sum())
        total += module.eval()(tokens, labels=labels).loss.item() * targets
        count += targets
    return total / count


@pytest.mark.parametrize("name", TRAININGS)
def test_what_is_exported_is_what_was_trained(name: str, trained: Callable):
    found, plan = trained(name)
    tokens = found.root / plan.training / "tokens" / "train"
    logged = [row["loss"] for row in read_metrics(found.root / plan.training / "metrics.jsonl")]
    before = loss(found.root / plan.model, tokens)
    assert logged[0] == pytest.approx(before, rel=0.15), "another batch, but the same model"
    manifest = export(plan, "series", str(found.root))
    after = loss(found.root / manifest.path / "merged", tokens)
    assert after < before - 0.5
    assert logged[-1] == pytest.approx(after, rel=0.15)
    is_proven_by_its_adapter = plan.method != "full" and "Phi" not in name
    assert (found.root / manifest.path / "adapter").exists() == is_proven_by_its_adapter


def test_a_phi_with_an_adapter_is_exported_as_base_plus_adapter(trained: Callable):
    """The export has no adapter to prove that by: torchtune keeps it in its own form, which is read here."""
    found, plan = trained("Phi-4, lora")
    manifest = export(plan, "series", str(found.root))
    base = load_file(found.root / plan.model / "model.safetensors")
    adapter = torch.load(next((found.root / plan.training).glob("epoch_0/*/adapter_model.pt")))
    fused = {
        "self_attn.qkv_proj": ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
        "self_attn.o_proj": ("attn.output_proj",),
    }
    fused |= {"mlp.gate_up_proj": ("mlp.w1", "mlp.w3"), "mlp.down_proj": ("mlp.w2",)}
    for layer in range(2):
        for module, parts in fused.items():
            factors = [[adapter[f"layers.{layer}.{part}.lora_{side}.weight"] for side in "ba"] for part in parts]
            change = torch.cat([left @ right for left, right in factors])
            assert change.abs().max() > 1e-3
            base[f"model.layers.{layer}.{module}.weight"] += plan.lora_scale * change
    merged = load_file(found.root / manifest.path / "merged" / "model.safetensors")
    assert merged.keys() == base.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, base[name], rtol=0, atol=1e-6)


def test_a_gemma_2_goes_on_from_an_epoch_as_if_it_had_not_stopped(trained: Callable):
    """Its layer norms are put right each time that weights are read and written."""
    found, plan = trained("Gemma 2, full")
    training = found.root / plan.training
    expected = load_file(next(training.glob("epoch_1/*.safetensors")))
    shutil.rmtree(training / "epoch_1")
    train(plan, str(found.root))
    again = load_file(next(training.glob("epoch_1/*.safetensors")))
    for name, tensor in expected.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["mistral", "phi3"])
def test_sequences_longer_than_the_window_are_refused(family: str, tmp_path: Path):
    found = start(tmp_path, family, sliding_window=64)
    with pytest.raises(UserError, match="at most 64"):
        found.plan(max_seq_len=65)
    assert json.loads((found.root / found.plan(max_seq_len=64).plan.model / "config.json").read_text())
