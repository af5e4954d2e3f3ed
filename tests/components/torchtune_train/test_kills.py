"""Whatever is killed, and whenever: run again, a training ends as if nothing had happened."""

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from children import filled_but_for, small_volume
from given import Given, start

from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.errors import UserError
from kfp_finetune.metrics import read_metrics
from kfp_finetune.training.epochs import whole_epochs
from kfp_finetune.training.plan import Plan

STEP = """
import sys
from pathlib import Path
from kfp_finetune.training.plan import Plan
from kfp_finetune.components.torchtune_train.train import train
train(Plan.from_json(Path(sys.argv[1], "plan.json").read_text()), sys.argv[2])
"""
KILLS = 2


def processes(training: Path, kind: str) -> list[int]:
    """The step, the torchrun agent or the workers of a training, by their command lines."""
    mark = {"step": b"plan.json", "agent": b"torch.distributed.run", "worker": b"torchtune_train.worker"}[kind]
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        is_agent = b"torch.distributed.run" in command
        if str(training).encode() in command and mark in command and (kind != "worker" or not is_agent):
            found.append(int(path.parent.name))
    return found


def lines(training: Path) -> int:
    path = training / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def run_and_kill(found: Given, plan: Plan, kind: str, after_steps: int) -> None:
    """Runs the step in a process and kills something of it once so many steps more are recorded."""
    training = found.root / plan.training
    before = lines(training)
    with subprocess.Popen([sys.executable, "-c", STEP, str(training), str(found.root)]) as step:
        while lines(training) < before + after_steps and step.poll() is None:
            threading.Event().wait(0.005)
        for victim in processes(training, kind)[:1]:
            os.kill(victim, signal.SIGKILL)
        assert step.wait() != 0 or lines(training) >= plan.total_steps
    for pid in processes(training, "worker"):
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            ended, _, _ = select.select([handle], [], [], 30)
            os.close(handle)
            assert ended, f"worker {pid} outlives its step"


def test_two_at_once_train_once_and_a_checkpoint_cut_short_by_a_full_volume_is_none(tmp_path: Path):
    with small_volume(tmp_path / "volume", "40m") as volume:
        found = start(volume)
        plan = found.plan(epochs=2).plan
        training = found.root / plan.training
        room = 200_000
        with filled_but_for(volume, room), pytest.raises(UserError, match="whose volume is full"):
            train(plan, str(found.root))
        assert not whole_epochs(training)
        command = [sys.executable, "-c", STEP, str(training), str(found.root)]
        before = lines(training)
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [step.communicate()[0] for step in both]
        assert [step.returncode for step in both] == [0, 0]
        assert sum("is finished already" in text for text in said) == 1
        assert lines(training) == before + plan.total_steps
        assert len(whole_epochs(training)) == 2


@pytest.mark.parametrize(("method", "procs"), [("lora", 2), ("full", 1)])
def test_after_kills_at_random_moments_losses_are_those_of_an_undisturbed_run(method: str, procs: int, tmp_path: Path):
    settings = {"method": method, "num_procs_per_node": procs, "batch_size": 4 // procs, "epochs": 3}
    settings["gradient_accumulation_steps"] = 3 - procs
    calm, struck = start(tmp_path / "calm"), start(tmp_path / "struck")
    plan = calm.plan(**settings).plan
    assert struck.plan(**settings).plan.key == plan.key
    train(plan, str(calm.root))
    seed = random.randrange(2**32)
    print(f"killed at the moments of seed {seed}")
    chance = random.Random(seed)
    for kind in ("worker", "step") if procs == 2 else ("agent", "worker"):
        run_and_kill(struck, plan, kind, chance.randint(0, 2 * plan.total_steps // 3))
    train(plan, str(struck.root))
    figures = [read_metrics(found.root / plan.training / "metrics.jsonl") for found in (calm, struck)]
    assert [row["loss"] for row in figures[1]] == pytest.approx([row["loss"] for row in figures[0]], abs=1e-6)
    an_epoch = plan.total_steps // plan.epochs
    done_twice = lines(struck.root / plan.training) - plan.total_steps
    assert 0 <= done_twice <= KILLS * an_epoch
