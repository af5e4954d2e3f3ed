"""Each method trains and exports what its adapter says, for every family; how the work is split changes no loss."""

from pathlib import Path

import pytest
from given import Given, start
from many import train_each

from kfp_finetune.components.export_model.export import export
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.errors import UserError
from kfp_finetune.metrics import read_metrics
from kfp_finetune.training.plan import Plan

WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1}
"""Wide enough for four bits on two processes, and for scales that do not cover a whole head."""
METHODS = ["full", "lora", "dora", "qlora", "qdora"]
CHANGES = {
    "qwen2": {},
    "qwen3": {"head_dim": 256},
    "llama": {"tie_word_embeddings": False},
    "mistral": {},
    "gemma": {"head_dim": 128},
    "gemma2": {"head_dim": 128},
    "phi3": {},
}


def losses(found: Given, plan: Plan) -> list[float]:
    return [row["loss"] for row in read_metrics(found.root / plan.training / "metrics.jsonl")]


def check_export(found: Given, plan: Plan, family: str) -> None:
    assert len(losses(found, plan)) == plan.total_steps
    assert min(losses(found, plan)[-3:]) < losses(found, plan)[0], plan.method
    manifest = export(plan, "series", str(found.root))
    adapter = {file.path for file in manifest.files if file.path.startswith("adapter/")}
    if plan.method == "full" or family == "phi3":
        assert not adapter
    else:
        assert manifest.facts["largest_difference"] < 1e-5, plan.method
        assert adapter == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}


@pytest.mark.parametrize("family", CHANGES)
def test_every_method_trains_on_two_processes_and_exports_base_and_adapter(family: str, tmp_path: Path):
    found = start(tmp_path, family, **WIDE | CHANGES[family])
    plans = [found.plan(method=method, num_procs_per_node=2, batch_size=2).plan for method in METHODS]
    assert not train_each([found.root / plan.training for plan in plans], procs=2)
    for plan in plans:
        check_export(found, plan, family)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "mistral"])
def test_four_bits_train_on_one_process(family: str, tmp_path: Path):
    found = start(tmp_path, family, **WIDE | CHANGES[family])
    plans = [found.plan(method=method).plan for method in ("qlora", "qdora")]
    assert not train_each([found.root / plan.training for plan in plans], procs=1)
    for plan in plans:
        check_export(found, plan, family)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_an_adapter_beside_other_matrices_is_exported_right(family: str, tmp_path: Path):
    found = start(tmp_path, family, **WIDE | CHANGES[family] | {"tie_word_embeddings": False})
    choices = [
        {"apply_lora_to_output": True},
        {"apply_lora_to_output": True, "apply_lora_to_mlp": False, "lora_attn_modules": ["k_proj"]},
        {"lora_attn_modules": ["q_proj", "v_proj"], "lora_alpha": 4.0, "lora_dropout": 0.1},
    ]
    methods = ["lora", "dora", "qlora"]
    plans = [found.plan(method=method, advanced=choice).plan for method, choice in zip(methods, choices, strict=True)]
    assert not train_each([found.root / plan.training for plan in plans], procs=1)
    for plan in plans:
        check_export(found, plan, family)


@pytest.mark.parametrize(("sizes", "procs"), [({}, 1), (WIDE, 4)])
def test_four_bits_that_do_not_fit_are_refused_with_the_matrices(sizes: dict, procs: int, tmp_path: Path):
    found = start(tmp_path, **sizes)
    with pytest.raises(UserError, match=r"k_proj \([\d,]+ numbers\)"):
        found.plan(method="qlora", num_procs_per_node=procs)


EQUIVALENT = [
    ({"batch_size": 8}, {"batch_size": 2, "gradient_accumulation_steps": 4}),
    ({}, {"advanced": {"enable_activation_checkpointing": True}}),
    ({}, {"advanced": {"num_output_chunks": 3}}),
    ({"packed": True}, {"packed": True, "overrides": {"fsdp_reshard_after_forward": False}}),
]


def test_settings_that_only_divide_the_work_change_no_loss(tmp_path: Path):
    found = start(tmp_path)
    pairs = [(found.plan(**first).plan, found.plan(**second).plan) for first, second in EQUIVALENT]
    trainings = dict.fromkeys(found.root / plan.training for pair in pairs for plan in pair)
    assert not train_each(list(trainings), procs=1)
    for first, second in pairs:
        assert losses(found, second) == pytest.approx(losses(found, first), abs=1e-4)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_losses_are_the_same_on_one_process_and_on_two(method: str, tmp_path: Path):
    found = start(tmp_path)
    alone = found.plan(method=method, num_procs_per_node=1, batch_size=4).plan
    shared = found.plan(method=method, num_procs_per_node=2, batch_size=2).plan
    train(alone, str(found.root))
    train(shared, str(found.root))
    assert losses(found, shared) == pytest.approx(losses(found, alone), abs=1e-4)


def test_losses_are_the_same_if_each_matrix_is_shared_by_two_processes(tmp_path: Path):
    found = start(tmp_path, "llama", tie_word_embeddings=False)
    alone = found.plan(method="full", batch_size=4).plan
    split = {"method": "full", "batch_size": 4, "advanced": {"tensor_parallel_dim": 2}}
    shared = found.plan(num_procs_per_node=2, **split).plan
    assert not train_each([found.root / alone.training], procs=1)
    assert not train_each([found.root / shared.training], procs=2)
    assert losses(found, shared) == pytest.approx(losses(found, alone), abs=1e-4)
    export(shared, "series", str(found.root))


def test_losses_are_the_same_if_the_model_is_compiled(tmp_path: Path):
    found = start(tmp_path)
    eager = found.plan(advanced={"max_steps_per_epoch": 4}).plan
    compiled = found.plan(advanced={"compile": True, "max_steps_per_epoch": 4}).plan
    assert not train_each([found.root / eager.training, found.root / compiled.training], procs=1)
    assert losses(found, compiled) == pytest.approx(losses(found, eager), abs=1e-3)
    export(compiled, "series", str(found.root))
