"""The output layer is applied to several parts of a batch, so that logits take less memory; here without a detour.

A part of several rows is no contiguous piece of memory, and torch then multiplies row by row with a copy of the weights
for each, unless these are trained. With adapters they are not: on a CPU half of the time of a step went into that.
"""

from typing import Any

import torch


def make_parts_contiguous(model: Any) -> None:
    """Has a model copy each part of a batch before its output layer reads it; the logits are the same.

    Args:
        model: Of torchtune's.
    """

    def chunked_output(hidden: torch.Tensor) -> list[torch.Tensor]:
        return [model.output(part.contiguous()) for part in hidden.chunk(model.num_output_chunks, dim=1)]

    model.chunked_output = chunked_output
