"""The look at a dataset's rows in a process of its own, which may not take more memory than it is given.

A small parquet file can stand for any number of gigabytes, and says so only when it is read.
"""

import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from kfp_finetune.components.initialize_dataset.look import Look, look_at
from kfp_finetune.datafiles import DataFiles

MEMORY_BYTES = 512 * 2**20
"""A batch of rows, in Arrow and in Python, is seldom a tenth of this."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""The stacks and pools that libraries reserve for every core would count."""

TOO_LARGE = "rows that need more than {:,} bytes of memory to look at; allowed: less. Write smaller rows or row groups."


def look_within(files: DataFiles, memory_bytes: int = MEMORY_BYTES) -> Look:
    """Reads a dataset's rows once, as `look_at` does; what does not fit into the memory is a problem of the look.

    Args:
        files: The dataset's files.
        memory_bytes: What may be taken beyond what the libraries need.
    """
    asked = {
        "format": files.format,
        "splits": {split: [str(path) for path in paths] for split, paths in files.splits.items()},
        "memory_bytes": memory_bytes,
    }
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(
        command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD, check=False
    )
    if done.returncode == 0:
        return Look(**json.loads(done.stdout))
    reason = TOO_LARGE.format(memory_bytes) if done.returncode < 0 else f"the look ended with {done.returncode}"
    return Look({}, False, [], {}, 0, 0, [], reason)


def _look() -> None:
    """What the process does: files as JSON from its input, the look as JSON to its output."""
    import pyarrow as pa
    import pyarrow.parquet

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    asked = json.load(sys.stdin)
    splits = {split: tuple(map(Path, paths)) for split, paths in asked["splits"].items()}
    _limit(asked["memory_bytes"])
    look = look_at(DataFiles(asked["format"], splits))
    json.dump(asdict(look), sys.stdout)


def _limit(memory_bytes: int) -> None:
    """Bounds the memory of this process; where the system does not say what it has already, there is no bound."""
    status = Path("/proc/self/status")
    if status.exists():
        taken = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
        limit = int(taken.split()[1]) * 1024 + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    _look()
