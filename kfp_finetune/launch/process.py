"""Runs this machine's part of a training: torchrun, with a process for each GPU or a few on the CPU."""

import atexit
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kfp_finetune.errors import StepError

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""

LAUNCHER_VARIABLE = "KFP_FINETUNE_LAUNCHER"
"""Environment variable with the process that started torchrun, for workers that it outran while they were starting."""

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a process that was told to stop, as shells have it."""

NO_SPACE = "No space left on device"
"""What a process says last when the volume is full."""

SMALLER_BATCHES = "memory is too small for a batch; the next start reads smaller ones"
"""What a process says last when it has noted that."""

LAST_LINES = 20


class LaunchError(StepError):
    """The processes did not end well; the message has the last lines of each."""


def die_with_parent() -> None:
    """Has the kernel kill this process when the one that started it is gone, now or later (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        launcher = os.environ.get(LAUNCHER_VARIABLE)
        if launcher and not Path("/proc", launcher).exists():
            os.kill(os.getpid(), signal.SIGKILL)


def end_process() -> NoReturn:
    """Ends a process that did its work, before Python takes the interpreter down.

    A thread of torch's may still hold a tensor: gloo's do for as long as DistributedDataParallel holds its group, which
    outlives `destroy_process_group`. Letting go of it takes the interpreter's lock, and while the interpreter is taken
    down, Python before 3.14 unwinds a thread that asks for it, through C++ that must not be unwound: the process aborts
    ("terminate called without an active exception"), and a whole training is told as one that failed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@dataclass(frozen=True)
class Topology:
    """Which processes of a training run on this machine, and how they find the others.

    Args:
        num_procs: Processes on this machine.
        options: Of torchrun.
        folder: Of this machine's logs, below the training's.
    """

    num_procs: int
    options: Sequence[str]
    folder: str = ""

    @property
    def is_alone(self) -> bool:
        """Whether all processes of the training run on this machine."""
        return not self.folder

    @classmethod
    def one_machine(cls, num_procs: int) -> "Topology":
        """All processes on this machine."""
        # Without an address torchrun looks up the host's own name, for minutes where there is no network.
        return cls(num_procs, ["--standalone", "--local-addr", "localhost", "--nproc-per-node", str(num_procs)])

    @classmethod
    def one_node(cls, num_procs: int, rank: int) -> "Topology":
        """One of several nodes; the others' address is in the variables that Kubeflow Trainer sets.

        Args:
            num_procs: Processes on this node.
            rank: The node's number.
        """
        return cls(num_procs, [], f"node-{rank}")


def run_torchrun(
    module: str,
    arguments: Sequence[str],
    topology: Topology,
    logs: Path,
    on_line: Callable[[str], None],
) -> None:
    """Runs a module in several processes and waits for them.

    Args:
        module: Dotted name, run as `python -m` would. It calls `die_with_parent` first, so that no process outlives
            this one, however it ends, and `end_process` last.
        arguments: Of its command line.
        topology: Which processes run here.
        logs: Directory for the output of every process.
        on_line: Called with each line that the first process prints to stdout.

    Raises:
        LaunchError: If one of them failed; the others are stopped.
    """
    logs = logs / topology.folder
    logs.mkdir(parents=True, exist_ok=True)
    earlier = set(logs.glob("*/attempt_*"))
    command = [sys.executable, "-m", "torch.distributed.run", *topology.options]
    command += ["--log-dir", str(logs), "--redirects", "3", "--tee", "0:1", "-m", module, *arguments]
    threads = max(1, (os.cpu_count() or 1) // topology.num_procs)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TQDM_MININTERVAL": "1e9",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
    } | os.environ
    environment[LAUNCHER_VARIABLE] = str(os.getpid())
    with (
        (logs / "torchrun.log").open("w") as torchrun_log,
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=torchrun_log,
            text=True,
            preexec_fn=die_with_parent,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                on_line(re.sub(r"^\[\w+\]:", "", line.rstrip("\n")))
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise LaunchError(f"training ended with exit status {process.returncode}\n{last_lines(logs, earlier)}")


def last_lines(logs: Path, earlier: Collection[Path] = ()) -> str:
    """The last lines that the failed processes of the newest attempt wrote to stderr, or torchrun's own if none ran.

    Args:
        logs: As given to `run_torchrun`.
        earlier: Attempts that do not count.
    """
    attempts = [path for path in logs.glob("*/attempt_*") if path not in earlier]
    newest = max(attempts, key=lambda path: path.stat().st_mtime, default=None)
    files = sorted(newest.glob("*/stderr.log")) if newest else [logs / "torchrun.log"]
    texts = {file: file.read_text(errors="replace") for file in files}
    guilty = {file: text for file, text in texts.items() if "Traceback (most recent call last)" in text} or texts
    parts = (["--- " + str(file), *text.splitlines()[-LAST_LINES:]] for file, text in guilty.items())
    return "\n".join(line for part in parts for line in part)
