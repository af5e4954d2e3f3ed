"""How a matrix is rounded to eight or four bits: the same for a copy of a model and for a training that expects it."""

from dataclasses import dataclass
from typing import Any

import torch
from torchao.quantization import IntxUnpackedToInt8Tensor
from torchao.quantization.quant_primitives import (
    MappingType,
    _choose_qparams_affine_tinygemm,
    _dequantize_affine_tinygemm,
    _quantize_affine_tinygemm,
)

from kfp_finetune.training.exporting import INT8

GROUP_SIZE = 32
"""Weights of a row that share a scale and a zero in four bits: the least that the kernel has, at five bits a weight in
all. Groups of 128 take four and a quarter, and cost a small model more than its bound."""

DTYPE = torch.bfloat16
"""Of scales and zeros in four bits, and of what the kernel multiplies with."""

LEAST, MOST = 0, 15


@dataclass(frozen=True)
class FourBits:
    """A matrix in four bits.

    Args:
        numbers: From 0 to 15, of the matrix's shape, as whole numbers of 32 bits.
        scale: Of each group of a row.
        zero: Of each group of a row: what the number 8 stands for.
        group_size: Columns of a group.
    """

    numbers: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    group_size: int

    def to_floats(self, dtype: torch.dtype) -> torch.Tensor:
        """The matrix that the numbers stand for."""
        block, bounds = (1, self.group_size), (LEAST, MOST)
        return _dequantize_affine_tinygemm(
            self.numbers, block, self.scale, self.zero, torch.int32, *bounds, output_dtype=dtype
        )


def in_four_bits(weight: torch.Tensor, group_size: int = GROUP_SIZE) -> FourBits:
    """A matrix in four bits, each group of a row with a scale and a zero of its own.

    They are found in 32 bits, as torchao does not: in 16 it takes no scale below 2^-7, where those of real models lie.

    Args:
        weight: With two dimensions.
        group_size: 32, 64, 128 or 256; the matrix's columns are a multiple of it.
    """
    exact, block = weight.float(), (1, group_size)
    scale, zero = _choose_qparams_affine_tinygemm(
        exact, MappingType.ASYMMETRIC, block, torch.int32, LEAST, MOST, scale_dtype=DTYPE, zero_point_dtype=DTYPE
    )
    numbers = _quantize_affine_tinygemm(exact, block, scale.float(), zero.float(), torch.int32, LEAST, MOST)
    return FourBits(numbers, scale, zero, group_size)


def in_eight_bits(weight: torch.Tensor) -> IntxUnpackedToInt8Tensor:
    """A matrix in eight bits, each row with a scale of its own.

    The scales are not torchao's: of weights in 16 bits it takes none below 2^-7, where those of real models lie.

    Args:
        weight: With two dimensions.
    """
    exact = weight.float()
    scale = (exact.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(weight.dtype).tiny).to(weight.dtype)
    zero = torch.zeros_like(scale, dtype=torch.int8)
    return IntxUnpackedToInt8Tensor.from_hp(
        exact,
        (1, weight.shape[1]),
        torch.int8,
        intx_choose_qparams_algorithm=None,
        custom_scale=scale.float(),
        custom_zero_point=zero,
    ).to(dtype=weight.dtype)


def can_round(columns: int, bits: str) -> bool:
    """Whether a matrix can be held in so few bits.

    Args:
        columns: Of the matrix.
        bits: "int8" or "int4".
    """
    return bits == INT8 or columns % GROUP_SIZE == 0


def rounded(weight: torch.Tensor, bits: str) -> torch.Tensor:
    """The nearest matrix that so few bits can hold, in the dtype of the given one.

    Args:
        weight: With two dimensions.
        bits: "int8" or "int4".
    """
    if bits == INT8:
        return in_eight_bits(weight).dequantize()
    return in_four_bits(weight).to_floats(weight.dtype)


def round_matrices(model: Any, bits: str) -> None:
    """Rounds the matrices of a model's layers in place; embeddings and output stay exact, as in a quantised copy.

    Args:
        model: Of transformers.
        bits: "int8" or "int4".
    """
    for module in model.modules():
        is_matrix = type(module) is torch.nn.Linear and module is not model.get_output_embeddings()
        if is_matrix and can_round(module.in_features, bits):
            module.weight.data.copy_(rounded(module.weight.data, bits))
