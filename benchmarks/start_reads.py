"""What the processes of a training read from the volume, on one machine with none of it in the page cache."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Figure, start_over
from kfp_finetune.client.demo.docstrings import write_dataset
from kfp_finetune.client.demo.tiny_model import Shape, reference_texts, write_base_model
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.torchtune_train.planning import make_plan
from kfp_finetune.components.torchtune_train.train import WORKER
from kfp_finetune.training.plan import Plan

PROCESSES = (1, 2, 4)
SHAPE = Shape(hidden_size=1024, intermediate_size=2816, layers=8, heads=16, key_value_heads=8)
SETTINGS = {"dtype": "fp32", "split": "train[:8]", "batch_size": 1, "max_seq_len": 32, "method": "lora"}


def measure(directory: Path) -> list[Figure]:
    """Trains a few steps in 1, 2 and 4 processes, each time with the volume's files out of the page cache.

    Args:
        directory: Where to work; on a disk, since what lies in memory is never read.
    """
    rows, base, root = directory / "docstrings", directory / "base", directory / "workspace"
    write_dataset(rows)
    write_base_model(base, reference_texts(rows / "train.jsonl"), steps=1, shape=SHAPE)
    with (directory / "log").open("w") as log, contextlib.redirect_stdout(log):
        dataset, model = initialize_dataset(str(rows), str(root)), initialize_model(str(base), str(root))
        plans = [
            make_plan(dataset, model, "bench", SETTINGS | {"num_procs_per_node": count}, str(root)).plan
            for count in PROCESSES
        ]
    size = sum(path.stat().st_size for path in (root / model.path).glob("*.safetensors"))
    _read_bytes(plans[0], root)  # Programs and libraries come from the disk too, once.
    figures = [Figure("weights of a model whose training starts", f"{size / 1e6:.0f} MB", "", "")]
    for count, plan in zip(PROCESSES, plans, strict=True):
        read = _read_bytes(plan, root)
        each = ", ".join(f"{value / 1e6:.0f}" for value in read)
        name = f"read from the volume by {count} process{'es' if count > 1 else ''} / the weights"
        figures.append(Figure(name, f"{sum(read) / size:.2f}", "1", f"{each} MB"))
    return figures


def _read_bytes(plan: Plan, root: Path) -> list[int]:
    """The bytes that the disk gave to each process of a training, in ascending order."""
    training = root / plan.training
    start_over(training)
    _forget(root)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost"]
    command += ["--nproc-per-node", str(plan.num_procs_per_node), "-m", WORKER.module]
    command += WORKER.arguments(plan, training)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    read: dict[int, int] = {}
    with (
        (training.parent / "torchrun.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as torchrun,
    ):
        while torchrun.poll() is None:
            read |= dict(_workers(torchrun.pid))
            time.sleep(0.02)
    if torchrun.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: see {log.name}")
    return sorted(read.values())


def _workers(torchrun: int) -> Iterator[tuple[int, int]]:
    """Each worker that runs now, with what the disk has given it so far."""
    with contextlib.suppress(OSError):
        for pid in map(int, Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()):
            with contextlib.suppress(OSError, ValueError):
                if WORKER.module in Path(f"/proc/{pid}/cmdline").read_text():
                    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
                    yield pid, int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def _forget(root: Path) -> None:
    """Has the kernel drop the volume's files from its page cache."""
    os.sync()
    for path in (path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
