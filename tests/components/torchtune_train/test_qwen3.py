"""Qwen 3, built of torchtune's modules: what the logits of whole models do not show."""

import pytest
import torch
from torchtune.modules import FrozenNF4Linear, MultiHeadAttention
from torchtune.modules.peft import LoRALinear

from kfp_finetune.components.torchtune_train.qwen3 import NormedAttention, lora_qwen3, qwen3

SIZES = {
    "vocab_size": 100,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 64,
    "embed_dim": 128,
    "intermediate_dim": 128,
    "max_seq_len": 64,
    "norm_eps": 1e-6,
    "rope_base": 1e6,
    "tie_word_embeddings": True,
}
LORA = {"lora_attn_modules": ["q_proj", "v_proj"], "lora_rank": 4, "lora_alpha": 8}


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    built = qwen3(**SIZES)
    for name, parameter in built.named_parameters():
        if "_norm" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    return built.eval()


@torch.inference_mode()
def test_rows_that_share_a_sequence_are_read_as_each_alone():
    rows = [torch.arange(20), torch.arange(50, 81)]
    row = torch.cat([torch.full((len(tokens),), number) for number, tokens in enumerate(rows)])
    mask = (row[:, None] == row).tril()[None]
    positions = torch.cat([torch.arange(len(tokens)) for tokens in rows])[None]
    built = model()
    together = built(torch.cat(rows)[None], mask=mask, input_pos=positions)[0]
    alone = torch.cat([built(tokens[None])[0] for tokens in rows])
    assert alone.abs().max() > 10
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_torchtunes_own_attention_would_be_another(monkeypatch: pytest.MonkeyPatch):
    """Why there is one of our own: torchtune's normalises what is rotated already."""
    tokens, built = torch.arange(40)[None], model()
    ours = built(tokens)
    monkeypatch.setattr(NormedAttention, "forward", MultiHeadAttention.forward)
    assert (built(tokens) - ours).abs().max() > 0.01


def test_four_bits_hold_every_matrix_of_the_layers_and_no_other():
    built = lora_qwen3(**LORA, quantize_base=True, **SIZES | {"tie_word_embeddings": False})
    kinds = {name.removeprefix("layers.0."): type(module) for name, module in built.named_modules()}
    assert kinds["attn.q_proj"] is kinds["attn.v_proj"] is LoRALinear
    assert kinds["attn.k_proj"] is kinds["attn.output_proj"] is kinds["mlp.w1"] is FrozenNF4Linear
    assert kinds["output"] is torch.nn.Linear
    held = {name for name, weight in built.named_parameters() if type(weight.data).__name__ == "NF4Tensor"}
    assert len(held) == SIZES["num_layers"] * 7


def test_no_adapter_for_an_output_layer_that_is_the_embeddings():
    with pytest.raises(ValueError, match="apply_lora_to_output"):
        lora_qwen3(**LORA, apply_lora_to_output=True, **SIZES)
