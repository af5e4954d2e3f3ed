"""Each method trains and exports what its adapter says; how the work is split changes no loss."""

from pathlib import Path

import pytest
from given import start

from kfp_finetune.components.export_model.export import export
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.errors import UserError
from kfp_finetune.metrics import read_metrics

WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 8, "num_key_value_heads": 4}
"""Wide enough for four bits on two processes."""


def losses(directory: Path, **settings: object) -> list[float]:
    found = start(directory)
    plan = found.plan(**settings).plan
    train(plan, str(found.root))
    return [row["loss"] for row in read_metrics(found.root / plan.training / "metrics.jsonl")]


@pytest.mark.parametrize(
    ("method", "family", "procs"),
    [("dora", "llama", 2), ("dora", "qwen2", 1), ("qlora", "qwen2", 1), ("qlora", "llama", 2)],
)
def test_a_method_learns_and_its_export_is_base_and_adapter(method: str, family: str, procs: int, tmp_path: Path):
    found = start(tmp_path, family, **WIDE)
    plan = found.plan(method=method, num_procs_per_node=procs, batch_size=4 // procs, epochs=2).plan
    summary = train(plan, str(found.root))
    assert summary.steps == plan.total_steps
    assert summary.best_loss < 4.0
    manifest = export(plan, "series", str(found.root))
    assert manifest.facts["largest_difference"] < 1e-5
    adapter = {file.path for file in manifest.files if file.path.startswith("adapter/")}
    assert adapter == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}


@pytest.mark.parametrize(("heads", "procs"), [(4, 1), (8, 4)])
def test_four_bits_that_do_not_fit_are_refused_with_the_matrices(heads: int, procs: int, tmp_path: Path):
    found = start(tmp_path, **(WIDE | {"num_key_value_heads": 2} if heads == 8 else {}))
    with pytest.raises(UserError, match=r"k_proj and v_proj \([\d,]+ numbers\)"):
        found.plan(method="qlora", num_procs_per_node=procs)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_losses_are_the_same_on_one_process_and_on_two(method: str, tmp_path: Path):
    alone = losses(tmp_path / "one", method=method, num_procs_per_node=1, batch_size=4)
    shared = losses(tmp_path / "two", method=method, num_procs_per_node=2, batch_size=2)
    assert shared == pytest.approx(alone, abs=1e-4)


def test_accumulating_four_batches_is_one_batch_of_four_times_the_size(tmp_path: Path):
    large = losses(tmp_path / "large", batch_size=8)
    small = losses(tmp_path / "small", batch_size=2, gradient_accumulation_steps=4)
    assert small == pytest.approx(large, abs=1e-4)


def test_recomputing_activations_changes_nothing(tmp_path: Path):
    kept = losses(tmp_path / "kept")
    recomputed = losses(tmp_path / "recomputed", overrides={"enable_activation_checkpointing": True})
    assert recomputed == pytest.approx(kept, abs=1e-6)
