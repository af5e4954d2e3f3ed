"""Weights in four bits as torch's CUDA kernel reads them, packed and multiplied where there is no such GPU too.

No form of torchao 0.15 holds four bits in four, runs on CPU and GPU alike and can be written to safetensors. Of those
that can be written, intx_unpacked_to_int8 runs anywhere and takes eight bits for four; plain is multiplied by fbgemm
alone, a package of its own for a few GPUs. So tile_packed_to_4d is chosen, which torch's own kernel for GPUs of NVIDIA
(from compute capability 8.0) multiplies. torchao packs it on such a GPU only, but it is a mere order of numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torchao.quantization import Int4TilePackedTo4dTensor
from torchao.quantization.utils import pack_tinygemm_scales_and_zeros, unpack_tinygemm_scales_and_zeros
from torchao.utils import find_multiple

from kfp_finetune.rounding import MOST, FourBits, in_four_bits

COLUMNS, ROWS = 1024, 8
"""A matrix is filled up to multiples of these, as torchao does."""

_SHIFTS = (0, 16, 4, 20, 8, 24, 12, 28)
"""Where in 32 bits each of eight numbers lies: by tile of 16 columns, half of the tile, and parity of the column."""


def in_tiles(weight: torch.Tensor, group_size: int) -> Int4TilePackedTo4dTensor:
    """A matrix in four bits, in the order of the kernel.

    Args:
        weight: With two dimensions.
        group_size: As `rounding.in_four_bits` takes it.
    """
    rows, columns = weight.shape
    padding = (0, find_multiple(columns, COLUMNS) - columns, 0, find_multiple(rows, ROWS) - rows)
    padded = torch.nn.functional.pad(weight, padding)
    bits = in_four_bits(padded, group_size)
    scales = pack_tinygemm_scales_and_zeros(bits.scale.reshape(len(padded), -1), bits.zero.reshape(len(padded), -1))
    return Int4TilePackedTo4dTensor(pack(bits.numbers), scales, [1, group_size], weight.shape)


def pack(numbers: torch.Tensor) -> torch.Tensor:
    """Eight numbers of four bits in each one of 32, in the order of `_weight_int4pack_mm` for CUDA.

    Args:
        numbers: From 0 to 15, rows a multiple of 8 and columns of 128.
    """
    rows, columns = numbers.shape
    parts = numbers.to(torch.int32).reshape(rows // 8, 8, columns // 128, 4, 2, 2, 4, 2)
    lanes = parts.permute(0, 2, 1, 6, 3, 4, 5, 7).reshape(rows // 8, columns // 128, 32, 4, 8)
    shifts = torch.tensor(_SHIFTS, dtype=torch.int32, device=numbers.device)
    return (lanes << shifts).sum(-1, dtype=torch.int32)


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """The numbers that `pack` was given.

    Args:
        packed: What it gave.
    """
    rows, columns = packed.shape[0] * 8, packed.shape[1] * 128
    lanes = packed.unsqueeze(-1) >> torch.tensor(_SHIFTS, dtype=torch.int32, device=packed.device) & MOST
    parts = lanes.reshape(rows // 8, columns // 128, 8, 4, 4, 2, 2, 2)
    return parts.permute(0, 2, 1, 4, 5, 6, 3, 7).reshape(rows, columns)


@contextmanager
def multiplied_on_cpu() -> Iterator[None]:
    """Lets a model of this form run on a CPU, for which torch has no kernel: weights are unpacked at each use."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_weight_int4pack_mm", _multiply, "CPU")
    try:
        yield
    finally:
        library._destroy()


def _multiply(given: torch.Tensor, packed: torch.Tensor, group_size: int, scales: torch.Tensor) -> torch.Tensor:
    scale, zero = (part.squeeze(-1) for part in unpack_tinygemm_scales_and_zeros(scales))
    weight = FourBits(unpack(packed), scale, zero, group_size).to_floats(given.dtype)
    return given @ weight.T
