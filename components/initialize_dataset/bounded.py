"""The look at a dataset's rows in a process of its own, which may not take more memory than it is given.

A small parquet file can stand for any number of gigabytes, and says so only when it is read.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from kfp_finetune.components.initialize_dataset.look import MEMORY_BYTES, TOO_LARGE, Look, look_at
from kfp_finetune.datafiles import DataFiles

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""The stacks and pools that libraries reserve for every core would count."""

LOOK_FAILED = "the look failed; the step's log says why"


def look_within_bounds(files: DataFiles) -> Look:
    """Reads a dataset's rows once, as `look_at` does; what needs more than `MEMORY_BYTES` is a problem of the look.

    Args:
        files: The dataset's files.
    """
    asked = {
        "format": files.format,
        "splits": {split: [str(path) for path in paths] for split, paths in files.splits.items()},
    }
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(
        command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD, check=False
    )
    if done.returncode == 0:
        return Look(**json.loads(done.stdout))
    return Look({}, False, [], {}, 0, 0, [], TOO_LARGE if done.returncode < 0 else LOOK_FAILED)


def _look() -> None:
    """What the process does: files as JSON from its input, the look as JSON to its output."""
    import pyarrow as pa
    import pyarrow.parquet

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    asked = json.load(sys.stdin)
    splits = {split: tuple(map(Path, paths)) for split, paths in asked["splits"].items()}
    _limit(MEMORY_BYTES)
    look = look_at(DataFiles(asked["format"], splits))
    json.dump(vars(look), sys.stdout)


def _limit(memory_bytes: int) -> None:
    """Bounds the memory of this process; where the system does not say what it has already, there is no bound."""
    status = Path("/proc/self/status")
    if status.exists():
        taken = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
        limit = int(taken.split()[1]) * 1024 + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    _look()
