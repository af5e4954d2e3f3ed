"""Work in a process of its own, which may not take more memory than it is given.

A small parquet file can stand for any number of gigabytes, and says so only when it is read.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""The stacks and pools that libraries reserve for every core would count."""


class Failed(Exception):
    """The process ended without an answer; its log says why."""


def ask(module: str, asked: Any) -> Any:
    """Runs a module as a process.

    Args:
        module: It calls `answer` when it is the main program.
        asked: JSON for it.

    Returns:
        Its answer.

    Raises:
        MemoryError: If it was killed, which is how most libraries end where there is no memory.
        Failed: If it ended with an error of its own.
    """
    command = [sys.executable, "-m", module]
    done = subprocess.run(
        command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD, check=False
    )
    if done.returncode < 0:
        raise MemoryError(f"{module} was ended by signal {-done.returncode}")
    if done.returncode:
        raise Failed(f"{module} ended with status {done.returncode}")
    return json.loads(done.stdout)


def answer(work: Callable[[Any], Any], memory_bytes: int) -> None:
    """What the process does: JSON from its input, JSON to its output.

    Args:
        work: Makes the answer from what was asked.
        memory_bytes: What it may take beside the modules that are loaded already.
    """
    import pyarrow as pa
    import pyarrow.parquet  # before memory is counted

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    asked = json.load(sys.stdin)
    _limit(memory_bytes)
    json.dump(work(asked), sys.stdout)


def _limit(memory_bytes: int) -> None:
    """Bounds the memory of this process; where the system does not say what it has already, there is no bound."""
    status = Path("/proc/self/status")
    if status.exists():
        taken = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
        limit = int(taken.split()[1]) * 1024 + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
