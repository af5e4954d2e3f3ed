"""Notes what a training runs on, when it starts and when it ends, in its first process."""

import json
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from kfp_finetune._version import VERSION
from kfp_finetune.publishing import write_atomically
from kfp_finetune.training.environment import ENVIRONMENT_NAME, IMAGE_VARIABLE, Environment, read_environment

CPU_LIMIT, MEMORY_LIMIT = Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/memory.max")
"""What a container may use, where there is a limit: microseconds in a period, and bytes."""


def _without_fail(note: Callable[..., None]) -> Callable[..., None]:
    """A function that never ends a training, whatever is odd about the machine or the volume."""

    @wraps(note)
    def noted(*arguments: Any) -> None:
        try:
            note(*arguments)
        except Exception as error:
            print(f"what the training runs on was not noted: {error}", flush=True)

    return noted


@_without_fail
def note_environment(training: Path, *packages: str) -> None:
    """Notes what a training runs on; of all processes that torchrun started, the first does it.

    Args:
        training: The training's folder.
        packages: Distributions that train, whose versions are noted beside those of Python and torch.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    earlier = read_environment(training)
    now = _now()
    processes, on_each = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    gpu, gpu_memory = _gpu()
    environment = Environment(
        versions=_versions(packages),
        cpu=_cpu(),
        cpus=_cpus(),
        memory_gib=round(memory_bytes() / 2**30, 1),
        gpu=gpu,
        gpu_memory_gib=gpu_memory,
        nodes=max(1, processes // on_each),
        processes=processes,
        image=os.environ.get(IMAGE_VARIABLE, ""),
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        began=earlier.began if earlier else now,
        started=now,
        attempts=earlier.attempts + 1 if earlier else 1,
    )
    write_atomically(training / ENVIRONMENT_NAME, json.dumps(asdict(environment), indent=2))


@_without_fail
def note_end(training: Path) -> None:
    """Notes that a training has its last epoch.

    Args:
        training: The training's folder.
    """
    if environment := read_environment(training):
        ended = replace(environment, ended=_now())
        write_atomically(training / ENVIRONMENT_NAME, json.dumps(asdict(ended), indent=2))


def _versions(packages: Sequence[str]) -> dict[str, str]:
    cuda = {"CUDA": torch.version.cuda} if torch.cuda.is_available() and torch.version.cuda else {}
    return {
        "kfp-finetune": VERSION,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        **cuda,
        **{name: version(name) for name in packages},
    }


def _gpu() -> tuple[str, float]:
    if not torch.cuda.is_available():
        return "", 0.0
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    return found.name, round(found.total_memory / 2**30, 1)


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _cpus() -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    with suppress(OSError, ValueError):
        quota, period = map(int, CPU_LIMIT.read_text().split())
        return max(1, min(allowed, quota // period))
    return allowed


def memory_bytes() -> int:
    """Of this machine, or of the container where it has a limit."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        there = min(there, int(MEMORY_LIMIT.read_text()))
    return there


def resident_bytes() -> int:
    """Memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
