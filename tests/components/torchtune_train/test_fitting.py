"""Rows are read as many at a time as memory holds, and what is trained is the same."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from given import start

from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.torchtune_train import fitting, worker
from kfp_finetune.components.torchtune_train.fits import (
    TOO_LARGE_NAME,
    Fit,
    note_too_large,
    open_fits,
    possible_fits,
)
from kfp_finetune.components.torchtune_train.fitting import (
    MARGIN,
    SmallerBatches,
    _measure,
    _state_bytes,
    fit_batch,
    loss_of_answers,
    watched,
)
from kfp_finetune.components.torchtune_train.sampler import LengthSampler
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.components.torchtune_train.train import train


def fits(rows: int = 200, **asked: Any) -> list[tuple[int, int, bool]]:
    settings = TrainSettings(**asked)
    return [
        (fit.batch_size, fit.gradient_accumulation_steps, fit.enable_activation_checkpointing)
        for fit in possible_fits(settings, settings.settled(rows))
    ]


def test_what_is_left_open_is_tried_from_the_fastest_to_the_smallest():
    everything = [(8, 1, False), (4, 2, False), (2, 4, False), (1, 8, False), (1, 8, True)]
    assert fits(rows=1000) == everything
    assert fits(rows=1000, batch_size=8) == [(8, 1, False), (8, 1, True)]
    assert fits(rows=1000, enable_activation_checkpointing=True) == [(*fit[:2], True) for fit in everything[:4]]
    assert fits(batch_size=3, enable_activation_checkpointing=False) == [(3, 1, False)]
    assert fits(rows=1000, gradient_accumulation_steps=3)[:3] == [(3, 3, False), (1, 9, False), (1, 9, True)]
    in_backward = {"optimizer_in_bwd": True}
    assert fits(rows=1000, overrides=in_backward) == [(8, 1, False), (8, 1, True)]


@pytest.mark.parametrize(
    ("rows", "settings", "expected"),
    [(1000, {}, 8), (350, {}, 3), (350, {"epochs": 2}, 7), (10, {}, 1), (1000, {"num_procs_per_node": 4}, 2)],
)
def test_small_datasets_have_smaller_batches(rows: int, settings: dict[str, Any], expected: int):
    assert TrainSettings(**settings).settled(rows).batch_size == expected
    assert TrainSettings(batch_size=5, **settings).settled(rows).batch_size == 5


def test_what_was_too_large_is_not_tried_again(tmp_path: Path):
    found = start(tmp_path, rows=1000)
    training = found.root / found.plan(batch_size=0).plan.training
    assert [fit.batch_size for fit in open_fits(training)] == [8, 4, 2, 1, 1]
    assert note_too_large(training, open_fits(training)[1])
    assert [fit.batch_size for fit in open_fits(training)] == [2, 1, 1]
    assert not note_too_large(training, Fit(1, 8, True))
    (training / TOO_LARGE_NAME).write_text("{")
    assert len(open_fits(training)) == 5


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """This process as a training's only one."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def set_up(training: Path) -> Any:
    module = worker.load_recipe("lora_finetune_distributed")
    module.StatefulDistributedSampler = LengthSampler
    config = worker.ready_config(training / "config.yaml")
    worker._mend(config, on_gpu=False)
    recipe = module.LoRAFinetuneRecipeDistributed(config)
    recipe.setup(cfg=config)
    return recipe


def test_the_largest_batch_that_memory_holds_is_chosen(alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fitting, "resident_bytes", lambda: 10**9)  # which varies by more than a row takes here
    found = start(tmp_path, rows=1000)
    data = tmp_path / "long.jsonl"
    data.write_text(f'{{"input": "{"red stone " * 30}", "output": "{"blue river " * 80}"}}\n' * 900)
    found = replace(found, dataset=initialize_dataset(str(data), str(found.root)))
    training = found.root / found.plan(batch_size=0, max_seq_len=256).plan.training
    recipe = set_up(training)
    fits = open_fits(training)
    state = torch.random.get_rng_state()
    assert fit_batch(recipe, training, fits) == fits[0]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in recipe._model.parameters())

    takes = _measure(recipe, limit=float("inf"), loss=loss_of_answers)
    row = takes(2) - takes(1)
    assert row > 2**20
    for rows in (1, 2, 4, 8):
        there = int((takes(rows) + row / 2) / MARGIN)
        assert fit_batch(recipe, training, fits, there) == Fit(rows, 8 // rows, False)
    assert recipe._dataloader.batch_size == 8 and recipe._gradient_accumulation_steps == 1
    with pytest.raises(SmallerBatches, match="smaller ones"):
        fit_batch(recipe, training, fits, memory=1000)
    assert open_fits(training) == [Fit(1, 8, True)]


def test_memory_that_runs_out_while_one_row_is_measured_leads_to_activations_computed_again(
    alone: None, tmp_path: Path
):
    found = start(tmp_path, rows=1000)
    training = found.root / found.plan(batch_size=0).plan.training
    recipe = set_up(training)
    with pytest.raises(SmallerBatches):
        fit_batch(recipe, training, open_fits(training), loss=lambda *_: torch.empty(2**60))
    assert open_fits(training) == [Fit(1, 8, True)]


def test_state_that_lies_on_another_device_than_the_model_s_passes_takes_nothing_of_theirs():
    here, elsewhere = (torch.nn.Parameter(torch.zeros(3, device=device)) for device in ("cpu", "meta"))
    assert _state_bytes(torch.optim.AdamW([here, elsewhere]), torch.device("cpu")) == 2 * 3 * 4


def test_only_a_lack_of_memory_is_noted_as_one(tmp_path: Path):
    found = start(tmp_path, rows=1000)
    training = found.root / found.plan(batch_size=0).plan.training
    largest, *_, smallest = open_fits(training)
    with pytest.raises(RuntimeError, match="shapes"), watched(training, largest):
        raise RuntimeError("shapes differ")
    assert open_fits(training)[0] == largest
    with pytest.raises(SmallerBatches), watched(training, largest):
        torch.empty(2**60)
    assert open_fits(training)[0].batch_size == 4
    with pytest.raises(RuntimeError, match="allocate"), watched(training, smallest):
        torch.empty(2**60)


TOO_SMALL_FOR_FOUR = """
import torch
from torchtune.modules import TransformerDecoder
whole = TransformerDecoder.forward
def forward(self, tokens, **others):
    if len(tokens) > 2 and torch.is_grad_enabled():
        torch.empty(2**60)
    return whole(self, tokens, **others)
TransformerDecoder.forward = forward
"""


def test_a_training_that_memory_does_not_hold_goes_on_with_smaller_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Every process of Python reads sitecustomize: in each, batches of more than two rows find no memory."""
    whole, small = start(tmp_path / "a", rows=240), start(tmp_path / "b", rows=240)
    settings = {"batch_size": 4, "advanced": {"max_steps_per_epoch": 5}}
    plan = whole.plan(**settings).plan
    assert small.plan(**settings).plan.key == plan.key
    expected = train(plan, str(whole.root))

    training = small.root / plan.training
    (training / "fits.json").write_text(json.dumps([vars(Fit(4 // n, n, False)) for n in (1, 2, 4)]))
    (tmp_path / "sitecustomize.py").write_text(TOO_SMALL_FOR_FOUR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    summary = train(plan, str(small.root))
    assert "smaller ones" in capsys.readouterr().out
    assert json.loads((training / TOO_LARGE_NAME).read_text())["batch_size"] == 4
    assert summary.final_loss == pytest.approx(expected.final_loss, abs=1e-3)


LESS_FOR_THE_FIRST = """
import os
import subprocess
import sys
from kfp_finetune.components.torchtune_train import fitting
measured = fitting._kept
def kept(*arguments):
    return measured(*arguments) + (2**60 if os.environ.get("RANK") == "0" else 0)
fitting._kept = kept
"""


def test_processes_of_which_one_has_no_room_choose_together(tmp_path: Path):
    """With weights shared out, one that went on alone would wait for the other for ever."""
    found = start(tmp_path, rows=1000)
    training = found.root / found.plan(batch_size=0, num_procs_per_node=2).plan.training
    (tmp_path / "sitecustomize.py").write_text(LESS_FOR_THE_FIRST)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command += [worker.__name__, "--method", "lora", "--config", str(training / "config.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode != 0 and "smaller ones" in ended.stderr
    assert [fit.enable_activation_checkpointing for fit in open_fits(training)] == [True]
