"""Settings of all tests, and what tests of every kind of worker need."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)
settings.load_profile("default")

TAKEN_DOWN = """
import os, sys
from pathlib import Path

class Taken:
    def __del__(self, abort=os.abort):
        abort()

if "RANK" in os.environ and any(argument.endswith("worker") for argument in sys.orig_argv):
    Path(__file__).with_name(f"process-{os.getpid()}").touch()
    taken = Taken()
"""
"""What every process reads at its start (sitecustomize); of a worker it keeps what dies with the interpreter alone."""


@pytest.fixture
def no_interpreter_taken_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every worker that the test starts ends before its interpreter is taken down (`end_process`), or aborts."""
    hooks = tmp_path / "taken-down"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(TAKEN_DOWN)
    monkeypatch.setenv("PYTHONPATH", str(hooks), prepend=os.pathsep)
    yield
    assert len(list(hooks.glob("process-*"))) >= 2, "the hook was not in force"
