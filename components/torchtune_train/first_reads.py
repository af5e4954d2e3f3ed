"""The first process of a training alone reads the model's weights: the others are sent their shares of them.

torchtune 0.6.1 opens every file of weights in every process, which has the kernel read it whole on every machine, and
then hands each matrix out from the first process (`distribute_tensor`); what the others hold is never looked at.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors.torch import _getdtype
from torchtune.training.checkpointing import _checkpointer
from torchtune.training.checkpointing._utils import safe_torch_load

HEADER_SIZE_BYTES = 8
"""With which a file of safetensors begins: how long the description of its tensors is that follows."""

HANDED_OUT = ("full", "lora", "dora")
"""Methods of which the first process hands every weight out; each makes four bits of whole tensors by itself."""


def read_in_first_process(method: str, config: DictConfig) -> None:
    """Has the other processes take names and shapes from the files of weights, and no values.

    Args:
        method: The training's.
        config: Everything the recipe reads.
    """
    # Processes that share each matrix keep some tensors whole, and those are not handed out.
    is_handed_out = method in HANDED_OUT and config.get("tensor_parallel_dim", 1) == 1
    reads = int(os.environ["RANK"]) == 0 or not is_handed_out
    _checkpointer.safe_torch_load = safe_torch_load if reads else _load_without_values


def _load_without_values(path: Path | str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return shapes(Path(path)) if str(path).endswith(".safetensors") else safe_torch_load(path, *args, **kwargs)


def shapes(path: Path) -> dict[str, torch.Tensor]:
    """Tensors with the names, shapes and types of those in a file, of which each has one value in memory: zero.

    Args:
        path: A file of safetensors, of which only the description is read.
    """
    with path.open("rb", buffering=0) as file:
        described = json.loads(file.read(int.from_bytes(file.read(HEADER_SIZE_BYTES), "little")))
    described.pop("__metadata__", None)
    return {
        name: torch.zeros((), dtype=_getdtype(tensor["dtype"])).expand(tensor["shape"])
        for name, tensor in described.items()
    }
