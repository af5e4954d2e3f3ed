"""A quantised copy loads from disk and says the same, or there is no export; another one is made without training."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_models
import tiny
import torch
from given import SETTINGS, Given, start
from safetensors.torch import load_file, save_file
from small_rows import countings
from small_tasks import CAUSAL, SMALL_TASKS
from small_tasks import given as given_task
from transformers import AutoModelForCausalLM, AutoTokenizer

from kfp_finetune.components.evaluate_model.loss import held_out_loss
from kfp_finetune.components.export_model.comparison import held_out_rows
from kfp_finetune.components.export_model.export import export
from kfp_finetune.components.export_model.four_bits import in_tiles, multiplied_on_cpu, pack, unpack
from kfp_finetune.components.export_model.planned import plan_export
from kfp_finetune.components.export_model.publish.layout import lay_out
from kfp_finetune.components.export_model.quantized import write_quantized
from kfp_finetune.components.torchtune_train.planning import make_plan
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.components.transformers_train.train import train as train_with_transformers
from kfp_finetune.errors import UserError
from kfp_finetune.manifests import Manifest, read_manifest
from kfp_finetune.training.evaluation import perplexity
from kfp_finetune.training.exporting import ExportSettings, read_export_settings
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.planning import Asked, Outcome

TRAINING = {"held_out": "50%", "epochs": 2}
BITS = ["int8", "int4"]

Trained = tuple[Given, Plan]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    found = start(tmp_path_factory.mktemp("trained"), "qwen2", hidden_size=128, intermediate_size=384)
    plan = found.plan(method="lora", **TRAINING).plan
    train(plan, str(found.root))
    return found, plan


@pytest.fixture
def fresh(trained: Trained, tmp_path: Path) -> Trained:
    """The same training on a volume without an export."""
    found, plan = trained
    root = tmp_path / "workspace"
    shutil.copytree(found.root, root, symlinks=True, ignore=shutil.ignore_patterns("exports", "latest", "series"))
    return replace(found, root=root), plan


def plan_again(found: Given, settings: dict[str, Any]) -> Outcome:
    asked, problems = read_export_settings(settings)
    assert not problems
    values = SETTINGS | {"method": "lora"} | TRAINING
    return make_plan(found.dataset, found.model, "series", values, str(found.root), asked=Asked(export=asked))


def export_with(trained: Trained, **settings: Any) -> Manifest:
    found, plan = trained
    return export(plan, "series", str(found.root), settings=settings)


@contextmanager
def loaded(folder: Path) -> Iterator[Any]:
    """A model as its users load it, where there need not be a GPU."""
    with multiplied_on_cpu():
        yield AutoModelForCausalLM.from_pretrained(folder)


def measure(folder: Path, found: Given, plan: Plan) -> float:
    with loaded(folder) as model:
        return perplexity(held_out_loss("", model.eval(), held_out_rows(plan, found.root / plan.training))[0])


@pytest.mark.parametrize("bits", BITS)
def test_a_copy_loads_from_disk_speaks_and_is_as_good_as_the_manifest_says(bits: str, fresh: Trained):
    found, plan = fresh
    facts = export_with(fresh, quantize=bits).facts
    latest = found.root / "latest" / "series"
    copy = latest / "quantized"
    assert facts["quantize"] == bits and facts["perplexity_tokens"] > 50
    assert facts["quantized_bytes"] == sum(path.stat().st_size for path in copy.glob("*.safetensors"))
    assert facts["quantized_bytes"] < facts["merged_bytes"]
    assert not [path.name for path in copy.iterdir() if path.suffix in (".bin", ".pt")]
    with loaded(copy) as model, torch.inference_mode():
        linear = model.model.layers[0].mlp.up_proj.weight
        assert type(linear).__name__ == {"int8": "IntxUnpackedToInt8Tensor", "int4": "Int4TilePackedTo4dTensor"}[bits]
        assert type(model.get_input_embeddings().weight.data) is torch.Tensor
        tokens = AutoTokenizer.from_pretrained(copy)("red green blue", return_tensors="pt")
        answer = model.generate(**tokens, max_new_tokens=6, min_new_tokens=6, do_sample=False)
        assert answer.shape[1] == tokens["input_ids"].shape[1] + 6
    assert measure(copy, found, plan) == pytest.approx(facts["quantized_perplexity"], rel=1e-3)
    assert measure(latest / "merged", found, plan) == pytest.approx(facts["perplexity"], rel=1e-3)
    assert facts["perplexity_increase"] == facts["quantized_perplexity"] / facts["perplexity"] - 1 <= 0.1
    card = (latest / "README.md").read_text()
    assert f"## In {bits}" in card and f"{facts['quantized_bytes']:,}" in card and 'subfolder="quantized"' in card


def test_a_copy_that_is_worse_than_allowed_is_no_export_and_leaves_the_one_before(fresh: Trained):
    found, _ = fresh
    with pytest.raises(UserError, match=r"max_perplexity_increase: given 0\.\d+: perplexity [\d.]+ in int4") as refused:
        export_with(fresh, quantize="int4", max_perplexity_increase=0)
    assert "allowed: at most 0" in str(refused.value) and "Nothing was exported" in str(refused.value)
    assert not list((found.root / "exports").glob("[!.]*")) and not list((found.root / "exports").glob(".tmp*"))
    assert not (found.root / "latest").exists()
    before = export_with(fresh)
    with pytest.raises(UserError):
        export_with(fresh, quantize="int4", max_perplexity_increase=0)
    assert read_manifest(found.root / "latest" / "series") == before
    assert plan_again(found, {}).state == "done"


def test_other_settings_make_the_export_anew_and_train_nothing(fresh: Trained):
    found, plan = fresh
    plain = export_with(fresh)
    assert plan_again(found, {}).state == "done"
    epochs = {path: path.stat().st_mtime_ns for path in (found.root / plan.training).glob("epoch_*/*")}
    changed = {"quantize": "int8", "max_shard_size": "1MB"}
    outcome = plan_again(found, changed)
    assert outcome.state == "trained" and outcome.plan.key == plan.key
    made = export_with(fresh, **changed)
    assert read_manifest(found.root / "latest" / "series") == made != plain
    assert made.key == plain.key and plan_again(found, changed).state == "done"
    assert max(file.size for file in made.files if file.path.endswith(".safetensors")) <= 10**6
    assert plan_again(found, {"quantize": "int8", "max_shard_size": 10**6}).state == "done"
    assert plan_again(found, {"quantize": "int8"}).state == "trained"
    written = (found.root / made.path / "MANIFEST.json").stat().st_mtime_ns
    assert export_with(fresh, **changed) == made
    assert (found.root / made.path / "MANIFEST.json").stat().st_mtime_ns == written
    assert export_with(fresh).files == plain.files and not (found.root / made.path / "quantized").exists()
    assert epochs == {path: path.stat().st_mtime_ns for path in (found.root / plan.training).glob("epoch_*/*")}


def test_the_copy_is_published_in_a_folder_of_its_own(fresh: Trained):
    found, _ = fresh
    manifest = export_with(fresh, quantize="int8")
    places = {file.path for file in lay_out(found.root / manifest.path, manifest).files}
    assert {"model.safetensors", "config.json", "adapter/adapter_model.safetensors", "README.md"} <= places
    assert {"quantized/model.safetensors", "quantized/config.json", "quantized/tokenizer.json"} <= places


@pytest.mark.parametrize("bits", BITS)
def test_a_copy_in_many_files_is_the_same_copy(bits: str, tmp_path: Path):
    model = tiny.write_model(tmp_path / "model", "llama", hidden_size=256, tie_word_embeddings=False)
    write_quantized(model, tmp_path / "one", bits)
    write_quantized(model, tmp_path / "many", bits, 10**6 // 2)
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 1
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: path.name for path in files for name in load_file(path)}
    tokens = torch.arange(40).reshape(2, 20)
    with loaded(tmp_path / "one") as one, loaded(tmp_path / "many") as many, torch.inference_mode():
        assert torch.equal(one(tokens).logits, many(tokens).logits)


def test_what_transformers_trained_is_measured_on_its_own_rows(tmp_path: Path):
    base = small_models.write_llama(tmp_path / "base", [row["text"] for row in countings(100, 0)])
    small_models.save_base(base, "LlamaForCausalLM")
    rows = SMALL_TASKS[CAUSAL].write_rows(tmp_path / "rows")
    found = given_task(tmp_path, base, rows, CAUSAL, num_procs_per_worker=1)
    plan = found.plan().plan
    train_with_transformers(plan, str(found.root))
    facts = export(plan, "series", str(found.root), settings={"quantize": "int8"}).facts
    evaluation = json.loads((found.root / plan.training / "evaluation.json").read_text())
    assert facts["perplexity"] == pytest.approx(evaluation["figures_after"]["perplexity"], rel=1e-3)
    assert facts["quantized_perplexity"] == pytest.approx(facts["perplexity"], rel=0.02)


@pytest.mark.parametrize(
    ("bits", "changes", "allowed"),
    [
        ("int8", None, "a model with linear layers of torch"),
        ("int4", None, "a multiple of 32 columns"),
        ("int4", {"hidden_size": 48, "intermediate_size": 80}, "a multiple of 32 columns"),
        ("int4", {"hidden_size": 64}, "a copy that is smaller than the model"),
        ("int8", {"hidden_size": 48, "intermediate_size": 80}, ""),
    ],
)
def test_a_model_that_cannot_be_quantised_is_refused_before_it_is_trained(
    bits: str, changes: dict[str, int] | None, allowed: str, tmp_path: Path
):
    folder = tmp_path / "models" / "one"
    if changes is None:  # its layers are no linear ones of torch's
        small_models.save_base(small_models.write_gpt(folder, ["one two"]), "GPT2LMHeadModel")
    else:
        tiny.write_model(folder, "qwen2", **changes)
    model = Manifest("model", "one", "org/base", "1", "models/one", ())
    settings, problems = plan_export({"quantize": bits}, model, str(tmp_path))
    assert settings == ExportSettings(quantize=bits)
    assert [problem.what for problem in problems] == (["export.quantize"] if allowed else [])
    assert all(allowed in problem.allowed for problem in problems)


@pytest.mark.parametrize(("bits", "most"), [("int8", 0.05), ("int4", 0.4)])
def test_heads_of_any_size_and_their_norms_are_copied_too(bits: str, most: float, tmp_path: Path):
    model = tiny.write_model(tmp_path / "model", "qwen3", hidden_size=128, intermediate_size=384, head_dim=48)
    write_quantized(model, tmp_path / "copy", bits)
    tokens = torch.arange(60).reshape(2, 30)
    with loaded(tmp_path / "copy") as copy, torch.inference_mode():
        wanted = AutoModelForCausalLM.from_pretrained(model)(tokens).logits
        assert (copy(tokens).logits.float() - wanted).norm() < most * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("bits", "most"), [("int8", 0.012), ("int4", 0.09)])
def test_small_weights_are_told_apart_as_well_as_large_ones(bits: str, most: float, dtype: torch.dtype, tmp_path: Path):
    """Alone, torchao 0.15 rounds weights in 16 bits that are as small as those of real models to a few values."""
    model = tiny.write_model(tmp_path / "model", "qwen2", hidden_size=512, intermediate_size=1024)
    weights = {name: (tensor * 0.1).to(dtype) for name, tensor in load_file(model / "model.safetensors").items()}
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))
    write_quantized(model, tmp_path / "copy", bits)
    with loaded(tmp_path / "copy") as copy, torch.inference_mode():
        for name, module in copy.model.layers.named_modules():
            if isinstance(module, torch.nn.Linear):
                wanted = weights[f"model.layers.{name}.weight"].float()
                bias = 0 if module.bias is None else module.bias
                made = (module(torch.eye(module.in_features, dtype=copy.dtype)) - bias).T.float()
                assert (made - wanted).norm() < most * wanted.norm(), name


def test_four_bits_lie_where_the_kernel_for_gpus_looks_for_them():
    """As `matrix_to_m16n8k16_Bint4_layout` of torch's aten/native/cuda/int4mm.cu writes them, number by number."""
    numbers = torch.randint(0, 16, (16, 256), generator=torch.Generator().manual_seed(1))
    packed = pack(numbers)
    assert packed.shape == (2, 2, 32, 4) and torch.equal(unpack(packed), numbers)
    for tile, column, thread, pair in torch.cartesian_prod(*map(torch.arange, packed.shape)).tolist():
        row, first = tile * 8 + thread // 4, (column * 8 + pair * 2) * 16 + thread % 4 * 2
        places = [first, first + 1, first + 8, first + 9, first + 16, first + 17, first + 24, first + 25]
        found = [int(numbers[row, place]) for place in places]
        word = sum(found[place] << 4 * shift for shift, place in enumerate((0, 2, 4, 6, 1, 3, 5, 7)))
        assert int(packed[tile, column, thread, pair]) % 2**32 == word


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of NVIDIA")
def test_a_gpu_packs_and_multiplies_in_the_same_way():
    draw = torch.Generator().manual_seed(0)
    weight, given = torch.randn(120, 896, generator=draw).bfloat16(), torch.randn(5, 896, generator=draw).bfloat16()
    quantized = in_tiles(weight, 32)
    numbers = unpack(quantized.qdata)
    pairs = (numbers[:, ::2] << 4 | numbers[:, 1::2]).to(torch.uint8).cuda()
    assert torch.equal(quantized.qdata, torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), 8).cpu())
    with multiplied_on_cpu():
        here = torch.nn.functional.linear(given, quantized)
    there = torch.nn.functional.linear(given.cuda(), quantized.cuda()).cpu()
    assert (here - there).abs().max() < 0.02 * there.abs().max()


def test_a_cpu_multiplies_with_four_bits_inside_and_nowhere_else():
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(30, 320, generator=draw).bfloat16()
    given = torch.randn(5, 320, generator=draw).bfloat16()
    quantized = in_tiles(weight, 32)
    with multiplied_on_cpu():
        made = torch.nn.functional.linear(given, quantized)
    wanted = torch.nn.functional.linear(given, weight)
    assert (made - wanted).abs().mean() < 0.1 * wanted.abs().mean()
    with pytest.raises(NotImplementedError, match="_weight_int4pack_mm"):
        torch.nn.functional.linear(given, quantized)
