"""Tensors in a safetensors file, written and read one at a time, so that no second copy of them is in memory."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The format's names for what weights and optimizers hold."""


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes tensors, on any device, and flushes them to the volume.

    Args:
        path: The file; it is replaced.
        tensors: By name.
    """
    with path.open("wb") as file:
        file.write(_header(tensors))
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """A file of tensors, mapped into memory: `keys()` and `get_tensor(name)`.

    Args:
        path: The file.
    """
    with safe_open(path, framework="pt") as file:
        yield file


def _header(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """What the format begins with: a length, and as JSON each tensor's dtype, shape and place."""
    places: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        places[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(places).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
