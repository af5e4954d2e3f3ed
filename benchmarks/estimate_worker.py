"""One training process, whose largest resident memory is told apart from what it takes before the model is loaded.

    python -m benchmarks.estimate_worker METHOD SIDE WARM_UP CONFIG

trains on the configuration WARM_UP, whose model is tiny, then on CONFIG, and prints the bytes that the second needed
beside those that were there before. The recipe is the one of `torchtune_train.worker`; checkpoints are left out, since
those are gathered in the memory of a GPU's host.
"""

import ctypes
import gc
import sys
from pathlib import Path
from typing import Literal

import torch

from kfp_finetune.components.torchtune_train import worker

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PEAK, NOW = "VmHWM", "VmRSS"
FORGET_PEAK = "5"
"""What `clear_refs` takes to begin the peak anew; see proc_pid_clear_refs(5)."""

Side = Literal["ours", "torchtune"]
"""Who reads pairs of answers."""


def train(method: str, side: Side, config: Path) -> int:
    """Trains, and says the peak of resident memory from the loaded model to the last step.

    Args:
        method: One of `worker.METHODS`.
        side: Who reads pairs of answers.
        config: Of a planned training.
    """
    settings = worker.ready_config(config)
    of_pairs = worker.learns_preferences(settings)
    if method != "full" or of_pairs:
        torch.distributed.init_process_group("gloo")
    file, name = worker.choose_recipe(method, 1, of_pairs)
    recipe = getattr(worker.load_recipe(file), name)(settings)
    recipe.setup(cfg=settings)
    if of_pairs and side == "ours":
        worker.spare_logits(recipe)
    recipe.save_checkpoint = lambda *_, **__: None
    collect()
    CLEAR.write_text(FORGET_PEAK)
    recipe.train()
    peak = read(PEAK)
    torch.distributed.destroy_process_group()
    return peak


def collect() -> None:
    """Gives memory that is not in use back to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def read(name: str) -> int:
    """Bytes of resident memory.

    Args:
        name: `PEAK` or `NOW`.
    """
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Trains twice and prints the difference."""
    method, side, warm_up, config = sys.argv[1:]
    worker.support_cpu()
    train(method, side, Path(warm_up))
    collect()
    before = read(NOW)
    print(train(method, side, Path(config)) - before)


if __name__ == "__main__":
    main()
