"""Real child processes for tests: killed at a chosen moment, or without the right to write everywhere."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FILE_EVENTS = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir", "os.symlink", "shutil.rmtree")
"""Audit events that Python raises just before it touches the file system."""

UNPRIVILEGED_ID = 65534 if os.getuid() == 0 else os.getuid()
"""The uid of `run_unprivileged`'s child."""

DROP_PRIVILEGES = """
import os
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""


def killed_at(moment: int, work: Callable[[], object]) -> bool:
    """Does work in a child that is killed just before it touches the file system the moment-th time.

    Returns:
        Whether it was killed; else the work was done before that moment came.
    """
    child = os.fork()
    if child == 0:
        _work_until(moment, work)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def _work_until(moment: int, work: Callable[[], object]) -> None:
    left = moment

    def count(event: str, _: object) -> None:
        nonlocal left
        if event in FILE_EVENTS:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.addaudithook(count)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def run_unprivileged(imports: str, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs Python code that may read and write only what anybody may; it prints to the returned stdout."""
    program = f"import sys\n{imports}\n{DROP_PRIVILEGES}\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@contextmanager
def public_directory() -> Iterator[Path]:
    """A temporary directory that every user may enter and list (pytest's own are the user's alone)."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        try:
            yield root
        finally:
            for path in [root, *root.rglob("*")]:
                if not path.is_symlink():
                    path.chmod(0o755)


@contextmanager
def small_volume(directory: Path, size: str) -> Iterator[Path]:
    """A volume of its own of a given size, such as "1m"; the test is skipped where nothing may be mounted."""
    directory.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    mounted = subprocess.run(command, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small volume: {mounted.stderr.decode().strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@contextmanager
def filled_but_for(directory: Path, left: int) -> Iterator[None]:
    """A volume with so many bytes left, for a while."""
    ballast = directory / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(directory).free - left)
    yield
    ballast.unlink()
