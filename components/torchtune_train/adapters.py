"""Adapters that begin alike on any number of processes."""

import math

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torchtune.modules.peft import DoRALinear, LoRALinear


@torch.no_grad()
def initialize_alike(model: nn.Module, seed: int) -> None:
    """Draws every adapter's first matrix anew, the same whatever the number of processes.

    torchtune seeds each process differently and draws each process's share by itself, so that the number of processes
    would change the result. The distribution is its own, Kaiming uniform with a = sqrt(5) as for `nn.Linear`: from
    -1 / sqrt(in_dim) to 1 / sqrt(in_dim). The second matrix stays zero.

    Args:
        model: With adapters, sharded or not, not yet trained.
        seed: Of the training.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if not isinstance(module, LoRALinear | DoRALinear):
            continue
        weight = module.lora_a.weight
        bound = 1 / math.sqrt(module.in_dim)
        drawn = torch.empty(weight.shape).uniform_(-bound, bound, generator=generator)
        drawn = drawn.to(device=weight.device, dtype=weight.dtype)
        if isinstance(weight, DTensor):
            weight.copy_(distribute_tensor(drawn, weight.device_mesh, weight.placements))
        else:
            weight.copy_(drawn)
