"""What torchtune 0.6.1's distributed recipes lack on a machine without a GPU."""

import resource
from typing import Any

import torch


def support_cpu() -> None:
    """Lets the distributed recipes run on a CPU.

    They ask the device's namespace to empty its cache and reset its peak memory, which `torch.cpu` cannot, and
    `get_memory_stats` raises on a CPU; here it tells the process's resident memory instead.
    """
    import torchtune.training

    torch.cpu.empty_cache = lambda: None  # type: ignore[attr-defined]
    torch.cpu.reset_peak_memory_stats = lambda *_: None  # type: ignore[attr-defined]
    torchtune.training.get_memory_stats = _resident_memory


def _resident_memory(device: torch.device, reset_stats: bool = True) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"peak_memory_active": peak, "peak_memory_alloc": peak, "peak_memory_reserved": peak}
