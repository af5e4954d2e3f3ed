"""Builders of Qwen 3, for which torchtune 0.6.1 has none.

A Qwen 3 is a Qwen 2 whose queries and keys are normalised in each head, without biases, and with heads of any size. It
is built of torchtune's own modules, but for the order in its attention; see `NormedAttention`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torchtune.models.qwen2 import Qwen2RotaryPositionalEmbeddings
from torchtune.modules import (
    FeedForward,
    FrozenNF4Linear,
    MultiHeadAttention,
    RMSNorm,
    TiedLinear,
    TransformerDecoder,
    TransformerSelfAttentionLayer,
)
from torchtune.modules.common_utils import reparametrize_as_dtype_state_dict_post_hook
from torchtune.modules.peft import DoRALinear, LoRALinear

NORMS = {
    f"model.layers.{{}}.self_attn.{norm}.weight": f"layers.{{}}.attn.{norm}.scale" for norm in ("q_norm", "k_norm")
}
"""transformers' name for each weight that a Qwen 2 does not have, and torchtune's."""

Linear = Callable[[str, int, int], nn.Module]
"""Makes a matrix of a given name, with so many columns and rows."""


class NormedAttention(MultiHeadAttention):
    """Attention that normalises queries and keys before their positions rotate them, as the model does.

    torchtune 0.6.1 normalises them after that. It is for training: it keeps no keys and values for the next token.

    Args:
        kwargs: Of `MultiHeadAttention`, with `q_norm`, `k_norm` and `pos_embeddings`.
    """

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None = None,
        *,
        mask: Any = None,
        input_pos: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The output for hidden states of shape [batch, length, embed_dim]; see `MultiHeadAttention.forward`."""
        source = x if y is None else y
        queries = self.pos_embeddings(self.q_norm(self._heads(self.q_proj(x))), input_pos=input_pos)
        keys = self.pos_embeddings(self.k_norm(self._heads(self.k_proj(source))), input_pos=input_pos)
        values = self._heads(self.v_proj(source))
        shared_by = self.num_heads // self.num_kv_heads
        output = self._attention_call(
            queries.transpose(1, 2),
            keys.transpose(1, 2).repeat_interleave(shared_by, dim=1),
            values.transpose(1, 2).repeat_interleave(shared_by, dim=1),
            mask=mask,
            dropout_p=self.attn_dropout if self.training else 0.0,
            is_causal=mask is None and self.is_causal,
        )
        return self.output_proj(output.transpose(1, 2).flatten(2))

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        return projected.unflatten(-1, (-1, self.head_dim))


def qwen3(**sizes: Any) -> TransformerDecoder:
    """Qwen 3.

    Args:
        sizes: Of `build`.
    """
    return build(_plain, **sizes)


def lora_qwen3(
    *,
    lora_attn_modules: Sequence[str],
    apply_lora_to_mlp: bool = False,
    apply_lora_to_output: bool = False,
    lora_rank: int,
    lora_alpha: float,
    lora_dropout: float = 0.0,
    use_dora: bool = False,
    quantize_base: bool = False,
    **sizes: Any,
) -> TransformerDecoder:
    """Qwen 3 with an adapter.

    Args:
        lora_attn_modules: Some of q_proj, k_proj, v_proj, output_proj.
        apply_lora_to_mlp: Whether gate_proj, up_proj and down_proj have an adapter.
        apply_lora_to_output: Whether the output layer has one, if it is not the embeddings.
        lora_rank: Of the adapter's matrices.
        lora_alpha: The adapter's weight is alpha / rank.
        lora_dropout: Share of its inputs left out at random.
        use_dora: Whether it has a magnitude for each row.
        quantize_base: Whether the layers' matrices are held in four bits.
        sizes: Of `build`.
    """
    if apply_lora_to_output and sizes["tie_word_embeddings"]:
        raise ValueError("apply_lora_to_output is impossible here: this model's output layer is its embeddings")
    adapted = {*lora_attn_modules, *(["gate_proj", "up_proj", "down_proj"] if apply_lora_to_mlp else [])}
    adapted |= {"output"} if apply_lora_to_output else set()
    adapter = partial(DoRALinear if use_dora else LoRALinear, rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout)

    def linear(name: str, columns: int, rows: int) -> nn.Module:
        in_four_bits = quantize_base and name != "output"
        if name in adapted:
            return adapter(columns, rows, quantize_base=in_four_bits)
        return FrozenNF4Linear(columns, rows) if in_four_bits else _plain(name, columns, rows)

    model = build(linear, **sizes)
    if quantize_base:
        restore = partial(
            reparametrize_as_dtype_state_dict_post_hook,
            dtype=model.tok_embeddings.weight.dtype,
            offload_to_cpu=True,
        )
        model._register_state_dict_hook(restore)
    return model


def _plain(name: str, columns: int, rows: int) -> nn.Module:
    return nn.Linear(columns, rows, bias=False)


def build(
    linear: Linear,
    *,
    vocab_size: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    embed_dim: int,
    intermediate_dim: int,
    max_seq_len: int,
    norm_eps: float,
    rope_base: float,
    tie_word_embeddings: bool,
) -> TransformerDecoder:
    """Qwen 3 of given matrices.

    Args:
        linear: Makes each matrix.
        vocab_size: Tokens that it knows.
        num_layers: Layers.
        num_heads: Heads of the queries.
        num_kv_heads: Heads of keys and values.
        head_dim: Size of a head.
        embed_dim: Size of the hidden states.
        intermediate_dim: Size of the hidden states within an MLP.
        max_seq_len: Longest sequence, in tokens.
        norm_eps: Added to what a norm divides by.
        rope_base: Base of the angles by which positions rotate.
        tie_word_embeddings: Whether the output layer is the embeddings.
    """
    rope = Qwen2RotaryPositionalEmbeddings(head_dim, max_seq_len, rope_base)

    def layer() -> TransformerSelfAttentionLayer:
        attention = NormedAttention(
            # torchtune only checks that it is a multiple of the heads, which hidden states need not be here.
            embed_dim=num_heads * head_dim,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            q_proj=linear("q_proj", embed_dim, num_heads * head_dim),
            k_proj=linear("k_proj", embed_dim, num_kv_heads * head_dim),
            v_proj=linear("v_proj", embed_dim, num_kv_heads * head_dim),
            output_proj=linear("output_proj", num_heads * head_dim, embed_dim),
            pos_embeddings=rope,
            q_norm=RMSNorm(head_dim, norm_eps),
            k_norm=RMSNorm(head_dim, norm_eps),
            max_seq_len=max_seq_len,
        )
        mlp = FeedForward(
            gate_proj=linear("gate_proj", embed_dim, intermediate_dim),
            down_proj=linear("down_proj", intermediate_dim, embed_dim),
            up_proj=linear("up_proj", embed_dim, intermediate_dim),
        )
        return TransformerSelfAttentionLayer(
            attention, mlp, sa_norm=RMSNorm(embed_dim, norm_eps), mlp_norm=RMSNorm(embed_dim, norm_eps)
        )

    embeddings = nn.Embedding(vocab_size, embed_dim)
    return TransformerDecoder(
        tok_embeddings=embeddings,
        layers=[layer() for _ in range(num_layers)],
        max_seq_len=max_seq_len,
        num_heads=num_heads,
        head_dim=head_dim,
        norm=RMSNorm(embed_dim, norm_eps),
        output=TiedLinear(embeddings) if tie_word_embeddings else linear("output", embed_dim, vocab_size),
    )
