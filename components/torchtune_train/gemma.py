"""Builders of Gemma and Gemma 2, where torchtune 0.6.1 has none that the recipes can train rightly.

Gemma's LoRA builders lack an argument that every other family's takes. And torchtune's Gemma 2 has two defects: it caps
the last hidden states where the model caps its logits, mended here, and it confuses two layer norms of each layer in
its weights, mended by `EpochCheckpointer`.
"""

from typing import Any

import torch
from torch import nn
from torchtune.models import gemma as torchtune_gemma
from torchtune.models import gemma2 as torchtune_gemma2
from torchtune.modules import TiedLinear, TransformerDecoder


class CappedLinear(TiedLinear):
    """The embeddings as output layer, whose logits stay within a cap: cap x tanh(logits / cap).

    Args:
        tied_module: The embeddings.
        cap: Bound of the logits' absolute values, or None.
    """

    def __init__(self, tied_module: nn.Module, cap: float | None):
        super().__init__(tied_module)
        self._cap = cap

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of hidden states."""
        logits = super().__call__(x)
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap


def lora_gemma(*, apply_lora_to_output: bool = False, **arguments: Any) -> TransformerDecoder:
    """Gemma with an adapter; see `torchtune.models.gemma.lora_gemma`.

    Args:
        apply_lora_to_output: False: the output layer is the embeddings.
        arguments: Of torchtune's builder.
    """
    _check_output(apply_lora_to_output)
    return torchtune_gemma.lora_gemma(**arguments)


def gemma2(*, final_capping_value: float | None, **arguments: Any) -> TransformerDecoder:
    """Gemma 2; see `torchtune.models.gemma2.gemma2`.

    Args:
        final_capping_value: Bound of the logits, or None.
        arguments: Of torchtune's builder.
    """
    return _cap_logits(torchtune_gemma2.gemma2(**arguments), final_capping_value)


def lora_gemma2(
    *, final_capping_value: float | None, apply_lora_to_output: bool = False, **arguments: Any
) -> TransformerDecoder:
    """Gemma 2 with an adapter; see `torchtune.models.gemma2.lora_gemma2`.

    Args:
        final_capping_value: Bound of the logits, or None.
        apply_lora_to_output: False: the output layer is the embeddings.
        arguments: Of torchtune's builder.
    """
    _check_output(apply_lora_to_output)
    return _cap_logits(torchtune_gemma2.lora_gemma2(**arguments), final_capping_value)


def _cap_logits(model: TransformerDecoder, cap: float | None) -> TransformerDecoder:
    model.norm.logit_capping = nn.Identity()
    model.output = CappedLinear(model.tok_embeddings, cap)
    return model


def _check_output(apply_lora_to_output: bool) -> None:
    if apply_lora_to_output:
        raise ValueError("apply_lora_to_output is impossible here: Gemma's output layer is its embeddings")
