"""The builder derived from config.json computes what transformers computes, or the model is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from torchtune import config as torchtune_config
from torchtune.modules.loss import CEWithChunkedOutputLoss
from transformers import AutoConfig, AutoModelForCausalLM

from kfp_finetune.components.torchtune_train.checkpoints import EpochCheckpointer
from kfp_finetune.components.torchtune_train.families import complete
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.errors import UserError

PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA31_ROPE = tiny.LLAMA3_ROPE | {"factor": 8.0}
UNTIED = {"tie_word_embeddings": False}
LENGTH = 100
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 2": ("llama", UNTIED | {"rope_parameters": PLAIN_ROPE, "num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "Code Llama": ("llama", UNTIED | {"rope_parameters": PLAIN_ROPE | {"rope_theta": 1e6}}),
    "Llama 3": ("llama", UNTIED | {"rope_parameters": PLAIN_ROPE | {"rope_theta": 5e5}}),
    "Llama 3.1, 3.3": ("llama", UNTIED | {"rope_parameters": LLAMA31_ROPE}),
    "Llama 3.2": ("llama", {}),
    "Llama 3.2, factor no whole number": ("llama", {"rope_parameters": LLAMA31_ROPE | {"factor": 2.5}}),
    "Llama, tied, plain positions": ("llama", {"rope_parameters": PLAIN_ROPE}),
    "Mistral": ("mistral", {}),
    "Mistral, in its window": ("mistral", {"sliding_window": LENGTH}),
    "Mistral, tied": ("mistral", {"tie_word_embeddings": True}),
    "Gemma": ("gemma", {}),
    "Gemma, one key and value head": ("gemma", {"num_key_value_heads": 1, "head_dim": 32}),
    "Gemma 2": ("gemma2", {}),
    "Gemma 2, no caps": ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "Phi-3 mini": ("phi3", {"num_key_value_heads": 4, "rope_parameters": PLAIN_ROPE, "sliding_window": LENGTH}),
    "Phi-4": ("phi3", {}),
    "Qwen 2.5, tied": ("qwen2", {}),
    "Qwen 2.5, untied": ("qwen2", UNTIED),
    "Qwen 2.5, other sizes": ("qwen2", {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3}),
    "Qwen 3, tied": ("qwen3", {}),
    "Qwen 3, untied": ("qwen3", UNTIED),
    "Qwen 3, heads as in Qwen 2": ("qwen3", {"head_dim": 16, "num_key_value_heads": 4}),
    "Qwen 3, one key and value head": ("qwen3", {"head_dim": 40, "num_attention_heads": 6, "num_key_value_heads": 1}),
}
LORA = {
    "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
    "apply_lora_to_mlp": True,
    "apply_lora_to_output": False,
    "lora_rank": 4,
    "lora_alpha": 8,
}


def hub_spelling(config: dict) -> dict:
    """The config.json that transformers 4 wrote, as most of the Hub still has it."""
    old = dict(config)
    rope = dict(old.pop("rope_parameters"))
    old["rope_theta"] = rope.pop("rope_theta")
    old["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    old["torch_dtype"] = old.pop("dtype", "float32")
    old.pop("layer_types", None)
    return old


def read(directory: Path) -> dict:
    return json.loads((directory / "config.json").read_text())


def rewrite(directory: Path, config: dict) -> None:
    (directory / "config.json").write_text(json.dumps(config))


def write(directory: Path, shape: str, spelling: str = "transformers 5") -> Path:
    family, changes = SHAPES[shape]
    tiny.write_model(directory, family, **changes)
    if spelling == "Hub":
        rewrite(directory, hub_spelling(read(directory)))
    return directory


def some_tokens(length: int = LENGTH) -> torch.Tensor:
    return torch.randint(tiny.SIZES["vocab_size"], (2, length), generator=torch.Generator().manual_seed(1))


def transformers_model(directory: Path) -> torch.nn.Module:
    model, info = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval()


def checkpointer(directory: Path) -> EpochCheckpointer:
    files = [path.name for path in directory.glob("*.safetensors")]
    return EpochCheckpointer(
        str(directory), files, read_architecture(read(directory)).model_type, str(directory.parent / "out")
    )


def torchtune_model(directory: Path, lora: bool = False) -> torch.nn.Module:
    architecture = read_architecture(read(directory))
    component = {"_component_": architecture.lora_builder, **LORA} if lora else {"_component_": architecture.builder}
    model = torchtune_config.instantiate(DictConfig({**component, **architecture.arguments, "max_seq_len": 128}))
    found = model.load_state_dict(checkpointer(directory).load_checkpoint()["model"], strict=not lora)
    assert not found.unexpected_keys and all("lora_" in name for name in found.missing_keys)
    return model.eval()


def save_again(directory: Path) -> Path:
    """Loads, saves as an epoch's end does, and says where."""
    saver = checkpointer(directory)
    model = torchtune_model(directory)
    saver.load_checkpoint()
    saver.save_checkpoint({"model": model.state_dict()}, epoch=0)
    return directory.parent / "out" / "epoch_0"


def assert_same_logits(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert theirs.abs().max() > 1, "logits too small to compare"
    assert (ours - theirs).abs().max() < tolerance


@pytest.mark.parametrize("spelling", ["transformers 5", "Hub"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_logits_equal_those_of_transformers(shape: str, spelling: str, tmp_path: Path):
    directory = write(tmp_path / "base", shape, spelling)
    theirs = transformers_model(directory)(some_tokens()).logits
    assert_same_logits(torchtune_model(directory)(some_tokens()), theirs)


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_a_new_adapter_changes_nothing(shape: str, tmp_path: Path):
    directory = write(tmp_path / "base", shape)
    theirs = transformers_model(directory)(some_tokens()).logits
    assert_same_logits(torchtune_model(directory, lora=True)(some_tokens()), theirs)


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_what_is_saved_is_what_was_loaded(shape: str, tmp_path: Path):
    directory = write(tmp_path / "base", shape)
    saved = save_again(directory)
    assert_same_logits(
        transformers_model(saved)(some_tokens()).logits, transformers_model(directory)(some_tokens()).logits, 1e-6
    )
    before, after = load_file(directory / "model.safetensors"), load_file(next(saved.glob("*.safetensors")))
    assert {name: tensor.tolist() for name, tensor in before.items()} == {
        name: tensor.tolist() for name, tensor in after.items()
    }


def transformers_loss(model: torch.nn.Module, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return model(tokens, labels=labels).loss


def torchtune_loss(model: torch.nn.Module, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """As torchtune's recipes compute it."""
    loss = CEWithChunkedOutputLoss()
    model.set_num_output_chunks(loss.num_output_chunks)
    shifted = torch.hstack((labels[:, 1:], torch.full((len(labels), 1), loss.ignore_index)))
    return loss(model(tokens), shifted)


def losses_of_two_steps(model: torch.nn.Module, loss: Callable[..., torch.Tensor]) -> list[float]:
    tokens = some_tokens()
    labels = tokens.masked_fill(torch.arange(LENGTH) < 40, -100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        value = loss(model, tokens, labels)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


@pytest.mark.parametrize("shape", SHAPES)
def test_losses_before_and_after_a_step_equal_those_of_transformers(shape: str, tmp_path: Path):
    directory = write(tmp_path / "base", shape)
    theirs = losses_of_two_steps(transformers_model(directory), transformers_loss)
    ours = losses_of_two_steps(torchtune_model(directory), torchtune_loss)
    assert theirs[0] - theirs[1] > 0.01, "the step changed too little to compare"
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("shape", ["Llama 3.2", "Phi-4", "Gemma 2", "Qwen 3, untied"])
@torch.inference_mode()
def test_weights_in_several_files(shape: str, tmp_path: Path):
    directory = write(tmp_path / "base", shape)
    model = transformers_model(directory)
    model.save_pretrained(directory, max_shard_size="100KB")
    (directory / "model.safetensors").unlink()
    assert len(list(directory.glob("*.safetensors"))) > 2
    expected = model(some_tokens()).logits
    assert_same_logits(torchtune_model(directory)(some_tokens()), expected)
    assert_same_logits(transformers_model(save_again(directory))(some_tokens()).logits, expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@torch.inference_mode()
def test_weights_stored_in_any_precision(dtype: torch.dtype, tmp_path: Path):
    directory = write(tmp_path / "base", "Mistral")
    AutoModelForCausalLM.from_pretrained(directory).to(dtype).save_pretrained(directory)
    assert {tensor.dtype for tensor in load_file(directory / "model.safetensors").values()} == {dtype}
    expected = transformers_model(directory)(some_tokens()).logits
    assert_same_logits(torchtune_model(directory)(some_tokens()), expected)
    assert_same_logits(transformers_model(save_again(directory))(some_tokens()).logits, expected, 1e-6)


TIED = ["Llama 3.2", "Mistral, tied", "Gemma", "Gemma 2", "Qwen 2.5, tied", "Qwen 3, tied"]


def store_output_layer(directory: Path, change: float, own_file: bool) -> None:
    tensors = load_file(directory / "model.safetensors")
    output = {"lm_head.weight": tensors["model.embed_tokens.weight"] + change}
    files = {"model": tensors, "z": output} if own_file else {"model": tensors | output}
    for name, content in files.items():
        save_file(content, directory / f"{name}.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("own_file", [False, True])
@pytest.mark.parametrize("shape", TIED)
@torch.inference_mode()
def test_a_tied_output_layer_may_be_stored_too(shape: str, own_file: bool, tmp_path: Path):
    directory = write(tmp_path / "base", shape)
    expected = transformers_model(directory)(some_tokens()).logits
    store_output_layer(directory, 0.0, own_file)
    assert_same_logits(torchtune_model(directory)(some_tokens()), expected)
    saved = save_again(directory)
    shutil.move(next(saved.glob("*.safetensors")), saved / "model.safetensors")
    assert_same_logits(transformers_model(saved)(some_tokens()).logits, expected, 1e-6)
    index = json.loads((saved / "model.safetensors.index.json").read_text())["weight_map"]
    assert index.keys() == load_file(saved / "model.safetensors").keys()


@pytest.mark.parametrize("shape", TIED)
def test_a_tied_output_layer_of_its_own_is_refused(shape: str, tmp_path: Path):
    directory = write(tmp_path / "base", shape)
    store_output_layer(directory, 0.01, own_file=False)
    with pytest.raises(ValueError, match="lm_head is not embed_tokens"):
        checkpointer(directory).load_checkpoint()


def test_frequencies_stored_with_llama_2_are_left_out(tmp_path: Path):
    directory = write(tmp_path / "base", "Llama 2")
    tensors = load_file(directory / "model.safetensors")
    extra = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(8) for layer in range(2)}
    save_file(tensors | extra, directory / "model.safetensors", metadata={"format": "pt"})
    saved = save_again(directory)
    assert json.loads((saved / "model.safetensors.index.json").read_text())["weight_map"].keys() == tensors.keys()


@pytest.mark.parametrize(
    ("shape", "longest"),
    [
        ("Mistral", 256),
        ("Mistral, in its window", 100),
        ("Phi-3 mini", 100),
        ("Phi-4", 256),
        ("Gemma 2", 256),
        ("Qwen 3, tied", 256),
    ],
)
def test_a_sequence_is_no_longer_than_a_window_that_the_builder_lacks(shape: str, longest: int, tmp_path: Path):
    assert read_architecture(read(write(tmp_path / "base", shape))).max_seq_len == longest


@torch.inference_mode()
def test_beyond_its_window_a_model_is_another(tmp_path: Path):
    """Why sequences are no longer than that."""
    directory = write(tmp_path / "base", "Mistral, in its window")
    theirs = transformers_model(directory)(some_tokens(LENGTH + 1)).logits
    differences = (torchtune_model(directory)(some_tokens(LENGTH + 1)) - theirs).abs().amax((0, 2))
    assert differences[:LENGTH].max() < 1e-4 < 1e-3 < differences[LENGTH]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_config_json_leaves_out_is_as_in_transformers(family: str):
    sizes = {name: size for name, size in tiny.SIZES.items() if name != "num_key_value_heads"}
    ours = complete({"model_type": family, **sizes})
    theirs = AutoConfig.for_model(family, **sizes)
    hidden_act = ours.pop("hidden_act")
    assert hidden_act == getattr(theirs, "hidden_activation" if family == "gemma2" else "hidden_act")
    window = ours.pop("sliding_window")
    assert window == getattr(theirs, "sliding_window", None)
    head_dim = ours.pop("head_dim")
    assert head_dim == getattr(theirs, "head_dim", tiny.SIZES["hidden_size"] // tiny.SIZES["num_attention_heads"])
    for name, value in ours.items():
        assert getattr(theirs, name) == value, name


@torch.inference_mode()
def test_a_config_json_that_leaves_out_what_transformers_knows(tmp_path: Path):
    sizes = {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256}
    directory = tiny.write_model(tmp_path / "base", "gemma", **sizes)
    expected = transformers_model(directory)(some_tokens()).logits
    left_out = {"num_key_value_heads", "head_dim", "tie_word_embeddings"}
    rewrite(directory, {name: value for name, value in read(directory).items() if name not in left_out})
    assert_same_logits(torchtune_model(directory)(some_tokens()), expected)
    assert_same_logits(transformers_model(save_again(directory))(some_tokens()).logits, expected, 1e-6)


def test_no_number_of_key_and_value_heads_means_one_for_each_query():
    assert read_architecture(llama(num_key_value_heads=None)).arguments["num_kv_heads"] == 4
    assert read_architecture(qwen2(num_key_value_heads=None)).arguments["num_kv_heads"] == 4


def qwen2(**changes: object) -> dict:
    base = {
        "model_type": "qwen2",
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        **tiny.SIZES,
    }
    return base | changes


def llama(**changes: object) -> dict:
    return qwen2(model_type="llama", rope_parameters=PLAIN_ROPE) | changes


def other(family: str, **changes: object) -> dict:
    return llama(model_type=family, **changes)


def scaled(**changes: object) -> dict:
    return llama(rope_parameters={name: value for name, value in (LLAMA31_ROPE | changes).items() if value is not None})


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "bert"}, "'bert'"),
        ({"model_type": "phi3small"}, "'phi3small'"),
        ({}, "None"),
        ({"model_type": "qwen2"}, "vocab_size"),
        (qwen2(hidden_size="large"), "hidden_size"),
        (qwen2(hidden_act="gelu"), "hidden_act"),
        (other("gemma", hidden_act="silu"), "hidden_act"),
        (other("gemma", hidden_activation="gelu"), "hidden_activation"),
        (other("gemma2", hidden_activation="gelu"), "hidden_activation"),
        (qwen2(use_sliding_window=True), "use_sliding_window"),
        (other("qwen3", use_sliding_window=True), "use_sliding_window"),
        (other("qwen3", attention_bias=True), "attention_bias True"),
        (other("qwen3", hidden_act="gelu"), "hidden_act 'gelu'"),
        (other("qwen3", layer_types=["full_attention", "sliding_attention"]), "layer_types"),
        (other("qwen3", rope_scaling={"rope_type": "yarn", "factor": 4.0}), "rope_type 'yarn'"),
        (other("qwen3", architectures=["Qwen3ForSequenceClassification"]), "Qwen3ForSequenceClassification"),
        ({**other("qwen3"), "model_type": "qwen3_moe"}, "'qwen3_moe'"),
        (qwen2(layer_types=["sliding_attention", "full_attention"]), "layer_types"),
        (other("gemma2", layer_types=["full_attention", "full_attention"]), "layer_types"),
        (qwen2(rope_scaling={"type": "yarn", "factor": 4.0}, rope_parameters=None), "rope_type 'yarn'"),
        (qwen2(rope_parameters=LLAMA31_ROPE), "rope_type 'llama3'"),
        (other("mistral", rope_parameters=LLAMA31_ROPE), "rope_type 'llama3'"),
        (other("phi3", rope_scaling={"type": "su"}), "rope_type 'su'"),
        (other("phi3", rope_parameters={"rope_type": "longrope"}), "rope_type 'longrope'"),
        (other("gemma2", rope_parameters={"full_attention": PLAIN_ROPE}), "rope_type 'one for each kind of layer'"),
        (llama(rope_parameters={"rope_type": "linear", "factor": 2.0}), "rope_type 'linear'"),
        (llama(rope_scaling={"type": "dynamic", "factor": 2.0}), "rope_type 'dynamic'"),
        (scaled(low_freq_factor=2.0), "low_freq_factor 2.0"),
        (scaled(high_freq_factor=None), "high_freq_factor None"),
        (scaled(original_max_position_embeddings=4096), "original_max_position_embeddings 4096"),
        (scaled(original_max_position_embeddings=None), "original_max_position_embeddings 256"),
        (scaled(factor=None), "rope factor None"),
        (llama(rope_parameters=PLAIN_ROPE | {"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (other("phi3", partial_rotary_factor=0.75), "partial_rotary_factor 0.75"),
        (llama(head_dim=32), "head_dim 32"),
        (other("mistral", head_dim=32), "head_dim 32"),
        (other("phi3", head_dim=32), "head_dim 32"),
        (llama(attention_bias=True), "attention_bias"),
        (other("gemma", attention_bias=True), "attention_bias"),
        (llama(mlp_bias=True), "mlp_bias"),
        (other("gemma", use_bidirectional_attention=True), "use_bidirectional_attention"),
        (other("gemma", tie_word_embeddings=False), "tie_word_embeddings False"),
        (other("gemma2", tie_word_embeddings=False), "tie_word_embeddings False"),
        (other("phi3", tie_word_embeddings=True), "tie_word_embeddings True"),
        (llama(quantization_config={"quant_method": "fp8"}), "quantization_config"),
        (llama(architectures=["LlamaForSequenceClassification"]), "LlamaForSequenceClassification"),
    ],
)
def test_what_the_builder_cannot_do_is_refused_by_name(config: dict, named: str):
    with pytest.raises(UserError, match=named.replace("(", r"\(")):
        read_architecture(config)


def test_every_fault_is_named_at_once():
    with pytest.raises(UserError) as caught:
        read_architecture(llama(mlp_bias=True, attention_bias=True, hidden_act="relu"))
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("family", ["gemma", "gemma2"])
def test_no_adapter_for_an_output_layer_that_is_the_embeddings(family: str, tmp_path: Path):
    architecture = read_architecture(read(tiny.write_model(tmp_path, family)))
    build = {"_component_": architecture.lora_builder, **LORA, **architecture.arguments, "max_seq_len": 8}
    with pytest.raises(ValueError, match="apply_lora_to_output"):
        torchtune_config.instantiate(DictConfig(build | {"apply_lora_to_output": True}))
