"""What torchtune 0.6.1's distributed recipes lack on a machine without a GPU."""

import resource
from collections.abc import Callable
from typing import Any

import torch


def support_cpu() -> None:
    """Lets the distributed recipes run on a CPU, and run right.

    They ask the device's namespace to empty its cache and reset its peak memory, which `torch.cpu` cannot, and
    `get_memory_stats` raises on a CPU; here it tells the process's resident memory instead. On a GPU the state that
    is gathered for a checkpoint is a copy; on a CPU with one process it is the model's own memory, into which LoRA's
    merge would then add the adapter: every later epoch would train a model that has it twice.
    """
    import torchtune.training

    torch.cpu.empty_cache = lambda: None  # type: ignore[attr-defined]
    torch.cpu.reset_peak_memory_stats = lambda *_: None  # type: ignore[attr-defined]
    torchtune.training.get_memory_stats = _resident_memory
    torchtune.training.gather_cpu_state_dict = _copied(torchtune.training.gather_cpu_state_dict)


def _copied(gather: Callable[..., dict[str, torch.Tensor]]) -> Callable[..., dict[str, torch.Tensor]]:
    def gather_copies(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in gather(*args, **kwargs).items()}

    return gather_copies


def _resident_memory(device: torch.device, reset_stats: bool = True) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"peak_memory_active": peak, "peak_memory_alloc": peak, "peak_memory_reserved": peak}
