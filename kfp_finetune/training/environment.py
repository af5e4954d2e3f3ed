"""What a training ran on, as its first process left it."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

ENVIRONMENT_NAME = "environment.json"

IMAGE_VARIABLE = "KFP_FINETUNE_IMAGE"
"""Environment variable by which a training pod is told its image, which nothing else in it knows."""


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


def _shown(moment: str) -> str:
    return datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M UTC") if moment else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s" if rest else ""
