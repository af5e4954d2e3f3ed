"""What a training ran on, as its first process notes it when it starts and when it ends."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kfp_finetune._version import VERSION
from kfp_finetune.publishing import write_atomically

ENVIRONMENT_NAME = "environment.json"

IMAGE_VARIABLE = "KFP_FINETUNE_IMAGE"
"""Environment variable by which a training pod is told its image, which nothing else in it knows."""

CPU_LIMIT, MEMORY_LIMIT = Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/memory.max")
"""What a container may use, where there is a limit: microseconds in a period, and bytes."""


@dataclass(frozen=True)
class Environment:
    """What a training ran on.

    Args:
        versions: Of Python and packages, by name.
        cpu: Model of the first machine's CPU.
        cpus: Cores that the first process may use.
        memory_gib: That machine's memory, or the container's limit.
        gpu: Model of the first process's GPU; empty for none.
        gpu_memory_gib: Its memory.
        nodes: Machines.
        processes: On all machines.
        image: Of the container, if it was told; empty if not.
        system: The kernel and the machine's kind.
        began: When the first attempt started, ISO 8601 in UTC.
        started: When the last attempt started.
        ended: When it had trained all epochs; empty until then.
        attempts: How often the training was started.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    cpu: str = ""
    cpus: int = 0
    memory_gib: float = 0.0
    gpu: str = ""
    gpu_memory_gib: float = 0.0
    nodes: int = 1
    processes: int = 1
    image: str = ""
    system: str = ""
    began: str = ""
    started: str = ""
    ended: str = ""
    attempts: int = 1

    @property
    def seconds(self) -> float:
        """Of the last attempt, from its start to its end; 0 if it did not end."""
        if not (self.started and self.ended):
            return 0.0
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.started)).total_seconds()

    def facts(self) -> Sequence[tuple[str, str]]:
        """All of it, for a reader."""
        facts = {
            "Began": _shown(self.began),
            "Ended": _shown(self.ended),
            "Took": _duration(self.seconds),
            "Attempts": str(self.attempts) if self.attempts > 1 else "",
            "GPU": f"{self.gpu}, {self.gpu_memory_gib:.0f} GiB" if self.gpu else "",
            "CPU": self.cpu,
            "CPU cores": str(self.cpus or ""),
            "Memory": f"{self.memory_gib:.1f} GiB" if self.memory_gib else "",
            "Machines": str(self.nodes),
            "Processes": str(self.processes),
            "System": self.system,
            "Image": self.image,
            **self.versions,
        }
        return [(name, value) for name, value in facts.items() if value]


def read_environment(training: Path) -> Environment | None:
    """What a training ran on; None if nobody noted it.

    Args:
        training: The training's folder.
    """
    with suppress(OSError, ValueError, TypeError):
        return Environment(**json.loads((training / ENVIRONMENT_NAME).read_text()))
    return None


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
        memory_gib=_memory_gib(),
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
    import torch

    cuda = {"CUDA": torch.version.cuda} if torch.cuda.is_available() and torch.version.cuda else {}
    return {
        "kfp-finetune": VERSION,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        **cuda,
        **{name: version(name) for name in packages},
    }


def _gpu() -> tuple[str, float]:
    import torch

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


def _memory_gib() -> float:
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        there = min(there, int(MEMORY_LIMIT.read_text()))
    return round(there / 2**30, 1)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _shown(moment: str) -> str:
    return datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M UTC") if moment else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s" if rest else ""
