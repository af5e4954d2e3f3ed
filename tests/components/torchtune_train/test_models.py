"""The builder derived from config.json computes what transformers computes, or the model is refused by name."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from torchtune import config as torchtune_config
from transformers import AutoModelForCausalLM

from kfp_finetune.components.torchtune_train.checkpoints import EpochCheckpointer
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.errors import UserError

PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SHAPES = {
    "Qwen 2.5, tied": ("qwen2", {}),
    "Qwen 2.5, untied": ("qwen2", {"tie_word_embeddings": False}),
    "Qwen 2.5, other sizes": ("qwen2", {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3}),
    "Llama 3.2, tied": ("llama", {}),
    "Llama 3.1, untied": ("llama", {"tie_word_embeddings": False}),
    "Llama with plain positions": ("llama", {"rope_parameters": PLAIN_ROPE}),
}


def hub_spelling(config: dict) -> dict:
    """The config.json that transformers 4 wrote, as most of the Hub still has it."""
    old = dict(config)
    rope = dict(old.pop("rope_parameters"))
    old["rope_theta"] = rope.pop("rope_theta")
    old["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    old["torch_dtype"] = old.pop("dtype", "float32")
    return old


def torchtune_logits(directory: Path, config: dict, tokens: torch.Tensor) -> torch.Tensor:
    architecture = read_architecture(config)
    build = {"_component_": architecture.builder, **architecture.arguments, "max_seq_len": 128}
    model = torchtune_config.instantiate(torchtune_config_dict(build))
    checkpointer = EpochCheckpointer(
        str(directory), ["model.safetensors"], architecture.model_type, str(directory.parent / "out")
    )
    model.load_state_dict(checkpointer.load_checkpoint()["model"])
    return model.eval()(tokens)


def torchtune_config_dict(values: dict):
    from omegaconf import DictConfig

    return DictConfig(values)


@pytest.mark.parametrize("spelling", ["transformers 5", "Hub"])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_those_of_transformers(shape: str, spelling: str, tmp_path: Path):
    family, changes = SHAPES[shape]
    directory = tiny.write_model(tmp_path / "base", family, **changes)
    config = json.loads((directory / "config.json").read_text())
    if spelling == "Hub":
        config = hub_spelling(config)
        (directory / "config.json").write_text(json.dumps(config))
    tokens = torch.randint(tiny.SIZES["vocab_size"], (2, 100), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs = AutoModelForCausalLM.from_pretrained(directory).eval()(tokens).logits
        ours = torchtune_logits(directory, config, tokens)
    assert theirs.abs().max() > 1, "logits too small to compare"
    assert (ours - theirs).abs().max() < 1e-4


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


SCALED = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "bert"}, "'bert'"),
        ({}, "None"),
        ({"model_type": "qwen2"}, "vocab_size"),
        (qwen2(hidden_size="large"), "hidden_size"),
        (qwen2(hidden_act="gelu"), "hidden_act"),
        (qwen2(use_sliding_window=True), "use_sliding_window"),
        (qwen2(rope_scaling={"type": "yarn", "factor": 4.0}, rope_parameters=None), "rope_type 'yarn'"),
        (llama(head_dim=32), "head_dim 32"),
        (llama(attention_bias=True), "attention_bias"),
        (llama(mlp_bias=True), "mlp_bias"),
        (llama(rope_parameters={"rope_type": "linear", "factor": 2.0}), "rope_type 'linear'"),
        (llama(rope_parameters=SCALED | {"low_freq_factor": 2.0}), "low_freq_factor"),
        (
            llama(rope_parameters=SCALED | {"original_max_position_embeddings": 4096}),
            "original_max_position_embeddings",
        ),
        (llama(rope_parameters=PLAIN_ROPE | {"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
    ],
)
def test_what_the_builder_cannot_do_is_refused_by_name(config: dict, named: str):
    with pytest.raises(UserError, match=named.replace("(", r"\(")):
        read_architecture(config)


def test_every_fault_is_named_at_once():
    with pytest.raises(UserError) as caught:
        read_architecture(llama(mlp_bias=True, attention_bias=True, hidden_act="relu"))
    assert len(caught.value.problems) == 3
