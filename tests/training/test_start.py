"""What a training's first process tells of its start."""

import subprocess
import sys
import time

import pytest
import torch

from kfp_finetune.training.start import PREFIX, Start, StartWatch, parse_start


def train(steps: int) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight])
    for _ in range(steps):
        weight.grad = torch.ones(1)
        optimizer.step()


def test_the_first_step_alone_ends_the_start(capfd: pytest.CaptureFixture[str]) -> None:
    before = time.monotonic()
    watch = StartWatch()
    train(1)
    assert capfd.readouterr().out == "", "what is stepped while the model is loaded is no training"
    watch.loaded()
    assert capfd.readouterr().out.startswith("start: ")
    train(3)
    (line,) = capfd.readouterr().out.splitlines()
    start = parse_start(line)
    assert start is not None
    assert start.imports > 0
    assert 0 <= start.load + start.first_step <= time.monotonic() - before + 0.02


def test_the_other_processes_tell_nothing(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    StartWatch().loaded()
    train(2)
    assert capfd.readouterr().out == ""


def test_imports_are_counted_from_the_start_of_the_process() -> None:
    code = "from kfp_finetune.training.start import _age; import time; print(_age(), time.process_time())"
    age, computed = map(float, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert computed * 0.5 < age < 600, "importing torch is most of what this process did"


@pytest.mark.parametrize(
    "line", ["", "start here", PREFIX + "{", PREFIX + '{"imports": 1}', PREFIX + '{"imports": "a"}']
)
def test_a_line_that_is_no_start_is_none(line: str) -> None:
    assert parse_start(line) is None


def test_a_start_is_read_wherever_it_stands_in_a_line() -> None:
    start = Start(6.1, 2.3, 0.8)
    assert parse_start(f"[rank0]: {start.to_line()}") == start
