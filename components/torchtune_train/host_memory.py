"""Copies of a training's state in the host's memory, from which it is written while training goes on."""

from collections.abc import Mapping
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")
"""What a container may use, on hosts with the second version of control groups."""

SPARE = 0.5
"""Share of the free memory that copies leave alone."""


class HostCopies:
    """Memory for copies, taken once and used for each checkpoint.

    Copies from a GPU go to pinned memory, which is several times as fast.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def has_room(self, tensors: Mapping[str, torch.Tensor], processes: int) -> bool:
        """Whether copies fit into the free memory of the host and of this container, with enough to spare.

        Args:
            tensors: To be copied.
            processes: Of this machine, each of which has as many.
        """
        needed = [tensor for name, tensor in tensors.items() if name not in self._buffers]
        # torch rounds what is pinned up to a power of two.
        size = sum(tensor.numel() * tensor.element_size() * (2 if tensor.is_cuda else 1) for tensor in needed)
        return size * processes <= (1 - SPARE) * free_memory()

    def take(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Copies tensors; what was copied before is overwritten.

        Args:
            tensors: By name, of the same shapes each time.
        """
        for name, tensor in tensors.items():
            if name not in self._buffers:
                self._buffers[name] = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            self._buffers[name].copy_(tensor, non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()
        return {name: self._buffers[name] for name in tensors}


def free_memory() -> int:
    """Bytes that processes here can still take: of the host, and of this container if it is limited."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit == "max":
            return free
        kinds = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return free
    cached = int(kinds.get("inactive_file", 0)) + int(kinds.get("active_file", 0))
    return min(free, int(limit) - int(used) + cached)
