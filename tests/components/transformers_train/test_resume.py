"""Killed in the midst of an epoch, a training goes on from the one before, and ends as if nothing had happened."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from many_tasks import train_each
from safetensors.torch import load_file
from small_tasks import CAUSAL, Given, start

from kfp_finetune.components.transformers_train.train import train
from kfp_finetune.launch.process import LAUNCHER_VARIABLE
from kfp_finetune.metrics import read_metrics
from kfp_finetune.training.epochs import whole_epochs
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.start import parse_start

STEP = """
import sys
from pathlib import Path
from kfp_finetune.training.plan import read_plan
from kfp_finetune.training.start import parse_start
from kfp_finetune.components.transformers_train.train import train
train(read_plan(Path(sys.argv[1])), sys.argv[2])
"""
STRIKE = """
import os, signal
import kfp_finetune.metrics as metrics
recorder = metrics.step_recorder

def step_recorder(*arguments):
    record = recorder(*arguments)

    def struck(step, figures):
        record(step, figures)
        if step == {after}:
            os.killpg(int(os.environ["{launcher}"]), signal.SIGKILL)
            signal.pause()

    return struck

metrics.step_recorder = step_recorder
"""
"""What every process of the step reads at its start (sitecustomize)."""

STRATEGIES = ("ddp", "fsdp")
BEYOND = 5
"""Steps of the second epoch that are made before a training is killed."""


@pytest.fixture(scope="module")
def settings() -> dict:
    """Of a model with dropout, so that every process's random numbers have to go on too."""
    few = {"split": "train[:50%]", "epochs": 3, "batch_size": 4, "gradient_accumulation_steps": 2}
    return few | {"dtype": "fp32", "advanced": {"keep_last_n_checkpoints": 2}}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, settings: dict) -> Mapping[str, tuple[Given, Plan]]:
    """Trainings that nothing disturbs."""
    found = start(tmp_path_factory.mktemp("calm"), CAUSAL, **settings)
    trainings = {name: (found, found.plan(strategy=name).plan) for name in STRATEGIES}
    train_each([found.training(plan) for _, plan in trainings.values()])
    return trainings


def workers(training: Path) -> list[int]:
    """The processes of a training but the one that started torchrun."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes()
            if str(training).encode() in command and b"transformers_train.worker" in command:
                found.append(int(path.parent.name))
    return found


def run_and_kill(given: Given, plan: Plan, after: int, hooks: Path) -> None:
    """Runs the step; its first worker kills it and torchrun once it has recorded so many steps."""
    training = given.training(plan)
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(STRIKE.format(after=after, launcher=LAUNCHER_VARIABLE))
    command = [sys.executable, "-c", STEP, str(training), str(given.root)]
    environment = os.environ | {"PYTHONPATH": str(hooks)}
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, env=environment) as step:
        assert step.wait() == -signal.SIGKILL
    for pid in workers(training):
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            ended, _, _ = select.select([handle], [], [], 30)
            os.close(handle)
            assert ended, f"worker {pid} outlives its step"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.usefixtures("no_interpreter_taken_down")
def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(
    strategy, calm, settings, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    undisturbed, plan = calm[strategy]
    struck = replace(undisturbed, root=tmp_path / "workspace")
    struck.root.mkdir()
    for name in ("datasets", "models"):
        (struck.root / name).symlink_to(undisturbed.root / name)
    assert struck.plan(strategy=strategy).plan.key == plan.key
    training, whole = struck.training(plan), undisturbed.training(plan)

    an_epoch = plan.total_steps // plan.epochs
    run_and_kill(struck, plan, an_epoch + BEYOND, tmp_path / "hooks")
    assert list(whole_epochs(training)) == [0]
    made = len((training / "metrics.jsonl").read_text().splitlines())
    assert made == an_epoch + BEYOND < 2 * an_epoch, "it was killed in the second epoch"
    assert struck.plan(strategy=strategy).state == "resume"
    before = (training / "before.json").read_text()

    summary = train(plan, str(struck.root))
    printed = capfd.readouterr().out
    assert "begins at epoch 2 of 3" in printed
    (began,) = filter(None, map(parse_start, printed.splitlines()))
    assert min(began.imports, began.load, began.first_step) > 0
    assert len((training / "metrics.jsonl").read_text().splitlines()) == made + 2 * an_epoch
    figures = [
        [{name: row[name] for name in ("step", "loss", "lr", "grad_norm", "tokens")} for row in rows]
        for rows in (read_metrics(folder / "metrics.jsonl") for folder in (training, whole))
    ]
    assert figures[0] == figures[1]
    assert (training / "before.json").read_text() == before == (whole / "before.json").read_text()
    weights = [load_file(folder / "epoch_2/model.safetensors") for folder in (training, whole)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])

    assert list(whole_epochs(training)) == [1, 2], "keep_last_n_checkpoints is 2"
    assert not (training / "epoch_2/state").exists() and not list(training.glob(".tmp-*"))
    assert struck.plan(strategy=strategy).summary == summary
    assert train(plan, str(struck.root)) == summary
    assert "is finished already" in capfd.readouterr().out
