"""A model that computes with rounded weights, so that it learns what is right once they are.

Jacob et al., 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference: the
forward pass sees the rounded weights, and their gradient goes to the exact ones as if there were no rounding.

It is torchtune's idea, but neither its recipe nor its quantizers: the recipe has no schedule of the learning rate, and
torchao 0.15 rounds weights of 16 bits to steps of no less than 2^-7, where the weights of real models are smaller.
"""

import importlib
from typing import Any

import torch
from torch import nn

from kfp_finetune.rounding import can_round, rounded


@torch.library.custom_op("kfp_finetune::rounded_weight", mutates_args=())
def _rounded_weight(weight: torch.Tensor, bits: str) -> torch.Tensor:
    """An operator of its own, since torch.compile would leave out that scales are rounded to 16 bits."""
    return rounded(weight, bits)


@_rounded_weight.register_fake
def _(weight: torch.Tensor, bits: str) -> torch.Tensor:
    return torch.empty_like(weight)


_rounded_weight.register_autograd(lambda ctx, gradient: (gradient, None))


class RoundedLinear(nn.Linear):
    """A linear layer that keeps its exact weights and multiplies with rounded ones.

    Args:
        exact: The layer whose weights it takes over.
        bits: "int8" or "int4".
    """

    def __init__(self, exact: nn.Linear, bits: str) -> None:
        super().__init__(exact.in_features, exact.out_features, bias=exact.bias is not None, device="meta")
        self.weight, self.bias = exact.weight, exact.bias
        self.bits = bits

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Multiplies with the rounded weights."""
        return nn.functional.linear(input, _rounded_weight(self.weight, self.bits), self.bias)


def rounded_model(builder: str, bits: str, **sizes: Any) -> nn.Module:
    """A model of torchtune's that computes with rounded weights, as a quantised copy of it will.

    Args:
        builder: Dotted name of what makes the model.
        bits: "int8" or "int4".
        sizes: For the builder.
    """
    module, _, function = builder.rpartition(".")
    model: nn.Module = getattr(importlib.import_module(module), function)(**sizes)
    layers: Any = model.layers
    for parent in list(layers.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and can_round(child.in_features, bits):
                setattr(parent, name, RoundedLinear(child, bits))
    return model
