"""What all processes of a training came to together."""

import json
import resource
from dataclasses import asdict
from pathlib import Path

import torch

from kfp_finetune.publishing import write_atomically
from kfp_finetune.training.noting import note_end
from kfp_finetune.training.result import RESULT_NAME, Result


def measure(tokens: float, seconds: float, on_gpu: bool, peak_gib: float = 0.0) -> Result:
    """Sums up what the processes measured; every one of them calls it.

    Args:
        tokens: That this process read, padding left out.
        seconds: That training took.
        on_gpu: Whether it trained on a GPU.
        peak_gib: GPU memory that it was seen to have before torch's own count of the most was begun anew.
    """
    device = torch.device("cuda" if on_gpu else "cpu")
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = max(peak, round(peak_gib * 2**30))
    read, memory = torch.tensor(tokens, dtype=torch.float64, device=device), torch.tensor(peak, device=device)
    torch.distributed.all_reduce(read)
    torch.distributed.all_reduce(memory, op=torch.distributed.ReduceOp.MAX)
    return Result(
        tokens=round(float(read)),
        seconds=round(seconds, 3),
        peak_memory_gib=round(int(memory) / 2**30, 3),
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
        world_size=torch.distributed.get_world_size(),
    )


def record_result(training: Path, result: Result) -> None:
    """Writes what was measured, and that it is the end, into the training's folder; of all processes the first does."""
    if torch.distributed.get_rank() == 0:
        write_atomically(training / RESULT_NAME, json.dumps(asdict(result), indent=2))
        note_end(training)
