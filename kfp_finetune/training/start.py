"""How long a training took to come to its first step, told by its first process."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

PREFIX = "start "


@dataclass(frozen=True)
class Start:
    """Seconds from the start of a training's first process to the end of its first step.

    Args:
        imports: Until its modules were imported.
        load: From then on, until the model and the data were there and the processes knew each other.
        first_step: From then on.
    """

    imports: float
    load: float
    first_step: float

    def to_line(self) -> str:
        """The start as one line of text, without a line end."""
        return PREFIX + json.dumps(asdict(self))


def parse_start(line: str) -> Start | None:
    """Reads a line that `Start.to_line` wrote; None for any other line."""
    begin = line.find(PREFIX + "{")
    if begin < 0:
        return None
    try:
        return Start(**{name: float(value) for name, value in json.loads(line[begin + len(PREFIX) :]).items()})
    except (ValueError, TypeError):
        return None


class StartWatch:
    """Tells how long a training takes to start; to be made as soon as a worker has imported its modules."""

    def __init__(self) -> None:
        self._imports = _age()
        self._began = time.monotonic()

    def loaded(self) -> None:
        """Takes now for the moment at which training can begin, and the end of the next step for that of the first."""
        if os.environ.get("RANK", "0") != "0":
            return
        load = time.monotonic() - self._began
        print(f"start: {self._imports:.1f} s imports, {load:.1f} s model and data", flush=True)
        began = time.monotonic()

        def stepped(*_: Any) -> None:
            hook.remove()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            first_step = time.monotonic() - began
            print(Start(round(self._imports, 2), round(load, 2), round(first_step, 2)).to_line(), flush=True)

        hook = register_optimizer_step_post_hook(stepped)


def _age() -> float:
    """Seconds since this process was started; where the kernel does not tell, those that it has computed for."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError):
        return time.process_time()
