"""An export loads in transformers and holds what was trained, or there is no export."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from given import Given, start
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from kfp_finetune.chat import DEFAULT_CHAT_TEMPLATE
from kfp_finetune.components.export_model.export import export
from kfp_finetune.components.export_model.verify import ExportError, verify
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.errors import UserError
from kfp_finetune.manifests import read_manifest, sha256_of
from kfp_finetune.training.plan import Plan

TRAININGS = {
    "lora, Qwen 2.5": ("qwen2", {"method": "lora"}, {}),
    "lora, Llama 3.2, untied, bf16": ("llama", {"method": "lora", "dtype": "bf16"}, {"tie_word_embeddings": False}),
    "lora, Qwen 3": ("qwen3", {"method": "lora"}, {}),
    "full, Qwen 2.5": ("qwen2", {"method": "full"}, {}),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Given, Plan]]:
    known: dict[str, tuple[Given, Plan]] = {}

    def get(name: str) -> tuple[Given, Plan]:
        if name not in known:
            family, settings, changes = TRAININGS[name]
            found = start(tmp_path_factory.mktemp("trained"), family, **changes)
            plan = found.plan(**settings).plan
            train(plan, str(found.root))
            known[name] = found, plan
        return known[name]

    return get


def logits(model: torch.nn.Module) -> torch.Tensor:
    tokens = torch.arange(60).reshape(2, 30)
    with torch.inference_mode():
        return model.eval()(tokens).logits.float()


@pytest.mark.parametrize("name", TRAININGS)
def test_the_export_loads_whole_and_is_what_was_trained(name: str, trained: Callable):
    found, plan = trained(name)
    manifest = export(plan, "series", str(found.root))
    merged = found.root / "latest" / "series" / "merged"
    model, info = AutoModelForCausalLM.from_pretrained(merged, dtype="auto", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[plan.dtype]
    base = AutoModelForCausalLM.from_pretrained(found.root / plan.model, dtype=model.dtype)
    assert (logits(model) - logits(base)).abs().max() > 0.1, "training changed nothing"
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "red"}], tokenize=False).startswith(
        "<|im_start|>"
    )
    assert manifest == read_manifest(found.root / "latest" / "series")
    for file in manifest.files:
        path = found.root / manifest.path / file.path
        assert (path.stat().st_size, sha256_of(path)) == (file.size, file.sha256)
    assert (found.root / "latest" / "series").resolve() == found.root / "exports" / plan.key
    assert found.plan(name="series", **TRAININGS[name][1]).state == "done"


@pytest.mark.parametrize("name", ["lora, Qwen 2.5", "lora, Qwen 3", "lora, Llama 3.2, untied, bf16"])
def test_base_plus_adapter_is_the_merged_model(name: str, trained: Callable):
    """As peft adds it: W + alpha / r * B A (Hu et al., 2021, section 4.1), in transformers' own layout."""
    found, plan = trained(name)
    export(plan, "series", str(found.root))
    latest = found.root / "latest" / "series"
    model = AutoModelForCausalLM.from_pretrained(found.root / plan.model, dtype=torch.float32)
    config = json.loads((latest / "adapter" / "adapter_config.json").read_text())
    adapter = load_file(latest / "adapter" / "adapter_model.safetensors")
    modules = {key.removesuffix(".lora_A.weight") for key in adapter if key.endswith("lora_A.weight")}
    assert len(modules) == 2 * 7
    assert {module.rsplit(".", 1)[1] for module in modules} == set(config["target_modules"])
    with torch.no_grad():
        for module in modules:
            delta = adapter[f"{module}.lora_B.weight"].float() @ adapter[f"{module}.lora_A.weight"].float()
            weight = model.get_submodule(module.removeprefix("base_model.model.")).weight
            weight += config["lora_alpha"] / config["r"] * delta
    merged = AutoModelForCausalLM.from_pretrained(latest / "merged", dtype=torch.float32)
    tolerance = {"fp32": 1e-4, "bf16": 0.15}[plan.dtype]
    assert (logits(model) - logits(merged)).abs().max() < tolerance
    assert not [path.name for path in (latest / "merged").iterdir() if path.name.startswith("adapter")]


def test_exporting_again_finds_the_export_and_moves_the_series(trained: Callable):
    found, plan = trained("full, Qwen 2.5")
    export(plan, "series", str(found.root))
    written = (found.root / "exports" / plan.key / "MANIFEST.json").stat().st_mtime_ns
    export(plan, "another", str(found.root))
    assert (found.root / "exports" / plan.key / "MANIFEST.json").stat().st_mtime_ns == written
    assert (found.root / "latest" / "another").resolve() == (found.root / "latest" / "series").resolve()


def test_a_damaged_export_is_not_done_and_is_made_again(trained: Callable):
    found, plan = trained("full, Qwen 2.5")
    manifest = export(plan, "series", str(found.root))
    weights = found.root / manifest.path / "merged" / "model.safetensors"
    weights.unlink()
    assert found.plan(name="series", method="full").state == "trained"
    assert export(plan, "series", str(found.root)).files == manifest.files
    assert weights.exists()
    assert found.plan(name="series", method="full").state == "done"


def test_weights_are_linked_and_not_copied(trained: Callable):
    found, plan = trained("full, Qwen 2.5")
    export(plan, "series", str(found.root))
    epoch = next((found.root / plan.training).glob("epoch_*/*.safetensors"))
    assert (found.root / "exports" / plan.key / "merged" / "model.safetensors").samefile(epoch)


def spoil(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def make_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")


def drop_one(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"]


def add_one(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.7.extra"] = torch.zeros(2)


def reshape_one(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"] = torch.ones(3)


def touch_a_frozen_one(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.embed_tokens.weight"][0, 0] += 1e-3


def touch_an_adapted_one(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.self_attn.k_proj.weight"][0, 0] += 1e-2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (make_nan, "up_proj.weight holds values that are not finite"),
        (drop_one, "1 missing: model.layers.1.mlp.up_proj.weight"),
        (add_one, "1 unexpected: model.layers.7.extra"),
        (reshape_one, "1 of another shape: model.norm.weight"),
        (touch_a_frozen_one, "embed_tokens.weight has no adapter"),
        (touch_an_adapted_one, "k_proj.weight is not base plus adapter"),
    ],
)
def test_a_spoilt_export_is_never_published(change: Callable, complaint: str, trained: Callable, tmp_path: Path):
    found, plan = trained("lora, Qwen 2.5")
    root = tmp_path / "copy"
    shutil.copytree(found.root, root, symlinks=True, ignore=shutil.ignore_patterns("exports", "latest"))
    spoil(next((root / plan.training).glob("epoch_0/*.safetensors")), change)
    with pytest.raises(ExportError, match=complaint):
        export(plan, "series", str(root))
    assert not list((root / "exports").glob("[!.]*")) and not list((root / "exports").glob(".tmp*"))
    assert not (root / "latest").exists()


def test_an_adapter_for_a_weight_that_is_not_there_is_refused(trained: Callable, tmp_path: Path):
    found, plan = trained("lora, Qwen 2.5")
    export(plan, "series", str(found.root))
    shutil.copytree(found.root / "exports" / plan.key, tmp_path / "export")

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if "layers.1.mlp.up_proj" in name]:
            tensors[name.replace("layers.1", "layers.9")] = tensors.pop(name)

    spoil(tmp_path / "export/adapter/adapter_model.safetensors", rename)
    with pytest.raises(ExportError):
        verify(tmp_path / "export/merged", tmp_path / "export/adapter", found.root / plan.model, plan.lora_scale)


def test_many_shards_are_indexed_anew(trained: Callable, tmp_path: Path):
    found = start(tmp_path)
    base = tmp_path / "sharded"
    shutil.copytree(tmp_path / "base", base)
    AutoModelForCausalLM.from_pretrained(tmp_path / "base").save_pretrained(base, max_shard_size="100KB")
    (base / "model.safetensors").unlink()
    from dataclasses import replace

    from kfp_finetune.components.initialize_model.model import initialize_model

    found = replace(found, model=initialize_model(str(base), str(found.root)))
    plan = found.plan(method="full").plan
    train(plan, str(found.root))
    manifest = export(plan, "series", str(found.root))
    assert len([file for file in manifest.files if file.path.endswith(".safetensors")]) > 2
    _, info = AutoModelForCausalLM.from_pretrained(found.root / manifest.path / "merged", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_a_model_without_a_chat_template_is_exported_with_the_one_it_was_trained_with(tmp_path: Path):
    base = tiny.write_model(tmp_path / "base")
    found = start(tmp_path / "other")
    (base / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((base / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    from dataclasses import replace

    from kfp_finetune.components.initialize_model.model import initialize_model

    found = replace(found, model=initialize_model(str(base), str(found.root)))
    plan = found.plan(advanced={"max_steps_per_epoch": 1}).plan
    train(plan, str(found.root))
    manifest = export(plan, "series", str(found.root))
    tokenizer = AutoTokenizer.from_pretrained(found.root / manifest.path / "merged")
    assert tokenizer.chat_template == DEFAULT_CHAT_TEMPLATE


def test_a_training_without_an_epoch_and_a_bad_name_are_refused(tmp_path: Path):
    found = start(tmp_path)
    plan = found.plan().plan
    with pytest.raises(UserError, match="has finished 0 of"):
        export(plan, "series", str(found.root))
    with pytest.raises(UserError, match="lower-case"):
        export(plan, "../../etc", str(found.root))
    assert not (found.root / "latest").exists()
