"""Tensor parallelism: which models can be trained so, and what torchtune 0.6.1 lacks for it with today's torch."""

from collections.abc import Iterable
from typing import Any

from kfp_finetune.components.torchtune_train.families import Architecture
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.errors import Problem


def check_tensor_parallel(train: TrainSettings, architecture: Architecture) -> list[Problem]:
    """What stands against sharing each matrix among processes.

    torchtune has a plan for Llama 3 alone, and only its full recipe reads it.

    Args:
        train: The settings.
        architecture: The model's.
    """
    degree, sizes = train.tensor_parallel_dim, architecture.arguments
    if degree == 1:
        return []
    reasons = {
        "1 unless method is full": train.has_adapter,
        "1 unless the model is a Llama with an output layer of its own": (
            architecture.model_type != "LLAMA3" or architecture.tied
        ),
        f"a divisor of num_procs_per_node, {train.num_procs_per_node}": bool(train.num_procs_per_node % degree),
        f"a divisor of the model's {sizes['num_heads']} heads and {sizes['num_kv_heads']} key and value heads": bool(
            sizes["num_heads"] % degree or sizes["num_kv_heads"] % degree
        ),
        "1 unless optimizer is adamw": train.optimizer != "adamw",
        "1 unless the batches are not packed": train.packed,
    }
    return [
        Problem("tensor_parallel_dim", str(degree), allowed, "Set tensor_parallel_dim to 1, or change the other.")
        for allowed, applies in reasons.items()
        if applies
    ]


def clip_over_meshes(parameters: Iterable[Any], max_norm: float, **_: Any) -> Any:
    """Limits the norm of the gradients, of which some are shared by more processes than others.

    `torch.nn.utils.clip_grad_norm_` stacks the norms of all gradients, which it cannot where they lie on different
    meshes of processes.

    Args:
        parameters: With gradients.
        max_norm: Largest norm.

    Returns:
        The norm before.
    """
    import torch
    from torch.distributed.tensor import DTensor

    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    whole = torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms])
    total = torch.linalg.vector_norm(whole)
    scale = float(torch.clamp(max_norm / (total + 1e-6), max=1.0))
    for gradient in gradients:
        gradient.mul_(scale)
    return total
