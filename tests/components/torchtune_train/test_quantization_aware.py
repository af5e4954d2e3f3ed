"""A model that learns with rounded weights is right once they are, and plain training of the same rows is not."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from given import Given
from many import train_each
from safetensors.torch import load_file, save_file
from shapes import architecture_of, build

from kfp_finetune.client.checks.values import check_remote
from kfp_finetune.components.evaluate_model.evaluate import evaluate
from kfp_finetune.components.export_model.export import export
from kfp_finetune.components.export_model.four_bits import in_tiles, multiplied_on_cpu
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.torchtune_train.quantization_aware import RoundedLinear
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.errors import UserError
from kfp_finetune.metrics import read_metrics
from kfp_finetune.rounding import GROUP_SIZE, in_eight_bits, rounded
from kfp_finetune.training.exporting import ExportSettings
from kfp_finetune.training.planning import Asked

LAYERS = 2
OUTLYING = {"int8": 512, "int4": 64}
"""How much larger some weights are than those that share a scale with them."""

READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


AS_INT4 = Asked(export=ExportSettings(quantize="int4"))


def start(directory: Path, outlying: int = OUTLYING["int4"]) -> Given:
    """A model that computes what it did before, with a weight in each group that is far larger than the others."""
    base = tiny.write_model(directory / "base", "qwen2", hidden_size=128, intermediate_size=384)
    weights = load_file(base / "model.safetensors")
    for layer in range(LAYERS):
        for norm, matrices in READERS.items():
            weights[f"model.layers.{layer}.{norm}.weight"][::GROUP_SIZE] /= outlying
            for matrix in matrices:
                weights[f"model.layers.{layer}.{matrix}.weight"][:, ::GROUP_SIZE] *= outlying
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    data, root = tiny.write_rows(directory / "rows.jsonl", 80), directory / "workspace"
    return Given(root, initialize_dataset(str(data), str(root)), initialize_model(str(base), str(root)))


def perplexities(found: Given, bits: str, name: str, **advanced: Any) -> tuple[float, float, float]:
    """Of the exact weights and of the copy in so few bits after a training, and the evaluation's loss."""
    asked = Asked(export=ExportSettings(quantize=bits))
    plan = found.plan(name, asked, method="full", held_out="25%", epochs=4, advanced=advanced).plan
    train(plan, str(found.root))
    evaluation = evaluate(plan, str(found.root))
    settings = {"quantize": bits, "max_perplexity_increase": 99}
    facts = export(plan, name, str(found.root), settings=settings).facts
    assert (f"rounded to {bits}" in (found.root / "latest" / name / "README.md").read_text()) == bool(advanced)
    return facts["perplexity"], facts["quantized_perplexity"], evaluation.loss_after


@pytest.mark.parametrize("bits", OUTLYING)
def test_a_copy_is_nearly_as_good_as_exact_weights_if_training_knew_of_it(bits: str, tmp_path: Path):
    found = start(tmp_path, OUTLYING[bits])
    exact, spoilt, _ = perplexities(found, bits, "plain")
    _, aware, loss = perplexities(found, bits, "aware", quantization_aware=bits)
    print(f"{bits}: perplexity {exact:.2f}, of a copy {spoilt:.2f}, of a copy that training knew of {aware:.2f}")
    assert spoilt > 1.2 * exact, "the test's model must be one that rounding hurts"
    assert aware < exact + 0.2 * (spoilt - exact)
    assert torch.tensor(loss).exp() == pytest.approx(aware, rel=0.02), "evaluation tells of the rounded model"


def test_shared_out_weights_and_activations_computed_again_change_no_loss(tmp_path: Path):
    found = start(tmp_path)
    aware = {"quantization_aware": "int4"}
    ways: list[dict[str, Any]] = [
        {"batch_size": 2, "advanced": aware},
        {
            "batch_size": 1,
            "gradient_accumulation_steps": 2,
            "advanced": aware | {"enable_activation_checkpointing": True},
        },
    ]
    plans = [found.plan(asked=AS_INT4, method="full", num_procs_per_node=2, **way).plan for way in ways]
    assert not train_each([found.root / plan.training for plan in plans], procs=2)
    whole, again = (
        [row["loss"] for row in read_metrics(found.root / plan.training / "metrics.jsonl")] for plan in plans
    )
    assert again[:5] == pytest.approx(whole[:5], abs=1e-4), "later, what differs in the last digit is rounded apart"
    assert again == pytest.approx(whole, abs=0.1) and whole[-1] < whole[0] - 1


def test_a_compiled_model_multiplies_with_the_same_weights(tmp_path: Path):
    found = start(tmp_path)
    few = {"quantization_aware": "int4", "max_steps_per_epoch": 2}
    plans = [found.plan(asked=AS_INT4, method="full", advanced=few | {"compile": way}).plan for way in (False, True)]
    assert not train_each([found.root / plan.training for plan in plans], procs=1)
    eager, compiled = (read_metrics(found.root / plan.training / "metrics.jsonl")[0]["loss"] for plan in plans)
    assert compiled == pytest.approx(eager, abs=1e-4)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_every_layer_multiplies_with_rounded_weights_and_learns_exact_ones(bits: str, family: str):
    train = TrainSettings(method="full", dtype="fp32", max_seq_len=64, quantization_aware=bits)
    model = build(train, architecture_of(family, hidden_size=96, head_dim=24))
    found = {name: module for name, module in model.named_modules() if isinstance(module, RoundedLinear)}
    exact = [module for module in model.layers.modules() if type(module) is torch.nn.Linear]
    assert found and not [layer for layer in exact if bits == "int8" or layer.in_features % GROUP_SIZE == 0]
    model(torch.randint(100, (2, 8))).sum().backward()
    for name, layer in found.items():
        given = torch.randn(3, layer.in_features)
        bias = 0 if layer.bias is None else layer.bias
        assert torch.equal(layer(given), given @ rounded(layer.weight, bits).T + bias), name
        assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0
    plain = {name for name, _ in model.named_parameters()}
    assert {f"{name}.weight" for name in found} <= plain, "checkpoints have the usual names"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_rounded_as_the_exported_copy_has_them(dtype: torch.dtype):
    weight = 0.02 * torch.randn(24, 320, generator=torch.Generator().manual_seed(0))
    weight = weight.to(dtype)
    with multiplied_on_cpu():
        copy = torch.nn.functional.linear(torch.eye(320, dtype=torch.bfloat16), in_tiles(weight, GROUP_SIZE)).T
    assert torch.allclose(rounded(weight, "int4").float(), copy.float(), rtol=2**-7, atol=1e-4), (
        "the copy's product is in 16 bits"
    )
    assert torch.equal(rounded(weight, "int8"), in_eight_bits(weight).dequantize())
    for bits, most in {"int8": 2e-3, "int4": 1e-2}.items():
        assert (rounded(weight, bits) - weight).abs().max() < most


def test_adapters_and_shared_matrices_are_refused_and_other_trainings_keep_their_keys(tmp_path: Path):
    found = start(tmp_path)
    with pytest.raises(UserError, match=r"quantization_aware: given int4, with method lora") as refused:
        found.plan(method="lora", advanced={"quantization_aware": "int4"})
    assert "Set method to full" in str(refused.value)
    with pytest.raises(UserError, match="quantization_aware: given 'int2'"):
        found.plan(method="full", advanced={"quantization_aware": "int2"})
    plain, empty = found.plan(method="full").plan, found.plan(method="full", advanced={"quantization_aware": ""}).plan
    aware = found.plan(asked=AS_INT4, method="full", advanced={"quantization_aware": "int4"}).plan
    assert plain.key == empty.key != aware.key


def test_a_training_for_a_copy_that_nobody_asks_for_is_refused_before_and_in_the_plan(tmp_path: Path):
    found = start(tmp_path)
    for quantize, given in (None, "no copy"), ("int8", "int8"):
        asked = Asked(export=ExportSettings(quantize=quantize))
        with pytest.raises(UserError, match=f"export.quantize: given {given}, of a model that is trained for int4"):
            found.plan(asked=asked, method="full", advanced={"quantization_aware": "int4"})
    values = {"method": "full", "advanced": {"quantization_aware": "int8"}}
    assert [problem.what for problem in check_remote(values, "torchtune-finetune")] == ["export.quantize"]
    assert check_remote({**values, "export": {"quantize": "int8"}}, "torchtune-finetune") == []
