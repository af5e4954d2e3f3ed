"""Processes of a training: their lines arrive, their failure is told, and none outlives the one that started them."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kfp_finetune.launch.process import LaunchError, Topology, last_lines, run_torchrun

DEADLINE_SECONDS = 60

WORKER = """
import os, signal, sys
from kfp_finetune.launch.process import die_with_parent

die_with_parent()
rank = os.environ["RANK"]
if "hold" in sys.argv:
    pipe = open(sys.argv[-1], "w")  # open for as long as the process lives
    print(os.getpid(), os.getppid(), file=pipe, flush=True)
print("arguments of", rank, sys.argv[1:])
print("[step 1]: from", rank)
if "fail" in sys.argv:
    open(sys.argv[-1], "w" if rank == "0" else "r")  # either waits for the other, so that the first has printed
if "fail" in sys.argv and rank == "1":
    print("".join(f"line {number}\\n" for number in range(50)) + "ValueError: it broke", file=sys.stderr)
    sys.exit(3)
if "fail" in sys.argv or "hold" in sys.argv:
    signal.pause()
"""


@pytest.fixture(autouse=True)
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


class Held:
    """The workers that hold a pipe open: it ends when the last of them has gone."""

    def __init__(self, path: Path):
        """Makes the pipe."""
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._read = b""
        self.pids: list[tuple[int, int]] = []

    def wait_for(self, count: int) -> None:
        """Waits until workers have begun; keeps their process ids and their parents'."""
        while self._read.count(b"\n") < count:
            assert self._more(), "a process ended early"
        self.pids = [tuple(map(int, line.split())) for line in self._read.splitlines()]

    def wait_for_the_end(self) -> None:
        while self._more():
            pass

    def _more(self) -> bytes:
        ready, _, _ = select.select([self._pipe], [], [], DEADLINE_SECONDS)
        assert ready, "the processes live on"
        piece = os.read(self._pipe, 4096)
        self._read += piece
        return piece

    def close(self) -> None:
        os.close(self._pipe)
        for pid, _ in self.pids:
            if Path(f"/proc/{pid}/cmdline").exists() and b"tiny_worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    processes = Held(tmp_path / "pipe")
    yield processes
    processes.close()


def test_the_lines_of_the_first_process_alone_arrive_in_order_and_as_printed(tmp_path: Path) -> None:
    lines: list[str] = []
    run_torchrun("tiny_worker", ["--a", "b c"], Topology.one_machine(2), tmp_path / "logs", lines.append)
    assert lines == ["arguments of 0 ['--a', 'b c']", "[step 1]: from 0"]
    logs = sorted((tmp_path / "logs").glob("*/attempt_0/*/stdout.log"))
    assert [path.read_text().splitlines()[1] for path in logs] == ["[step 1]: from 0", "[step 1]: from 1"]


def test_a_process_that_fails_stops_the_others_and_its_last_lines_are_told(tmp_path: Path) -> None:
    lines: list[str] = []
    os.mkfifo(tmp_path / "gate")
    with pytest.raises(LaunchError) as caught:
        run_torchrun(
            "tiny_worker", ["fail", str(tmp_path / "gate")], Topology.one_machine(2), tmp_path / "logs", lines.append
        )
    assert lines[1:] == ["[step 1]: from 0"]
    message = str(caught.value).splitlines()
    assert message[0] == "training ended with exit status 1"
    assert message[-20:] == [*(f"line {number}" for number in range(31, 50)), "ValueError: it broke"]
    assert message[-21].endswith("/attempt_0/1/stderr.log")


def test_an_error_of_the_one_who_listens_ends_the_processes_and_passes(tmp_path: Path, held: Held) -> None:
    def listen(line: str) -> None:
        held.wait_for(2)
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match="arguments of 0"):
        run_torchrun(
            "tiny_worker", ["hold", str(tmp_path / "pipe")], Topology.one_machine(2), tmp_path / "logs", listen
        )
    held.wait_for_the_end()


ENDING = """
import atexit, os
from kfp_finetune.launch.process import die_with_parent, end_process

class Last:
    def __del__(self, abort=os.abort):
        abort()

die_with_parent()
last = Last()
atexit.register(print, "tidied up", end="")
print("trained")
end_process()
"""


def test_a_process_that_did_its_work_tidies_up_and_ends_before_its_interpreter_is_taken_down(tmp_path: Path) -> None:
    (tmp_path / "ending_worker.py").write_text(ENDING)
    lines: list[str] = []
    run_torchrun("ending_worker", [], Topology.one_machine(2), tmp_path / "logs", lines.append)
    assert lines == ["trained", "tidied up"]


LAUNCHER = """
import sys
from pathlib import Path
from kfp_finetune.launch.process import Topology, run_torchrun
run_torchrun("tiny_worker", ["hold", sys.argv[1]], Topology.one_machine(2), Path(sys.argv[2]), print)
"""


def test_no_process_outlives_a_launcher_that_is_killed(tmp_path: Path, held: Held) -> None:
    places = [str(tmp_path / "pipe"), str(tmp_path / "logs")]
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, *places], stdout=subprocess.PIPE) as launcher:
        try:
            held.wait_for(2)
            [torchrun] = {parent for _, parent in held.pids}
            torchrun_end = os.pidfd_open(torchrun)
        finally:
            launcher.kill()
    assert select.select([torchrun_end], [], [], DEADLINE_SECONDS)[0], "torchrun lives on"
    os.close(torchrun_end)
    held.wait_for_the_end()


def write_log(logs: Path, name: str, text: str, time: int) -> Path:
    path = logs / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path.parent.parent if "attempt" in name else path, (time, time))
    return path


def test_the_last_lines_are_those_of_every_process_of_the_newest_attempt(tmp_path: Path) -> None:
    write_log(tmp_path, "a/attempt_0/0/stderr.log", "old", 1)
    first = write_log(tmp_path, "a/attempt_1/0/stderr.log", "first\n", 3)
    second = write_log(tmp_path, "a/attempt_1/1/stderr.log", "\n".join(map(str, range(99))), 3)
    write_log(tmp_path, "b/attempt_0/0/stderr.log", "old too", 2)
    assert last_lines(tmp_path).splitlines() == [f"--- {first}", "first", f"--- {second}", *map(str, range(79, 99))]


def test_without_a_new_attempt_the_last_lines_are_torchruns_own(tmp_path: Path) -> None:
    write_log(tmp_path, "a/attempt_0/0/stderr.log", "of an earlier run", 1)
    log = write_log(tmp_path, "torchrun.log", "no port is free\n", 2)
    assert last_lines(tmp_path, [tmp_path / "a" / "attempt_0"]) == f"--- {log}\nno port is free"
