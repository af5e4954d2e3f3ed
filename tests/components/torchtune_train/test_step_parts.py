"""The parts of checkpoints inside an epoch: when, what, from where, and in which file."""

import errno
import math
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from torchao.optim.subclass_8bit import OptimState8bit

from kfp_finetune.components.torchtune_train import steps
from kfp_finetune.components.torchtune_train.disk import bytes_to_write
from kfp_finetune.components.torchtune_train.families import Architecture
from kfp_finetune.components.torchtune_train.host_memory import HostCopies, free_memory
from kfp_finetune.components.torchtune_train.intervals import Interval
from kfp_finetune.components.torchtune_train.recipe_state import random_states, restore_random, state_tensors
from kfp_finetune.components.torchtune_train.sampler import LengthSampler
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.components.torchtune_train.steps import StepCheckpoints, keep_steps
from kfp_finetune.components.torchtune_train.tensor_files import DTYPES, open_tensors, write_tensors
from kfp_finetune.components.torchtune_train.updates import UpdateLoader
from kfp_finetune.training.steps import Step, newest_step, publish_step, staging_folder, step_file

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("minutes", "share", "cost", "seconds"),
    [(10, 0.05, 0, 600), (10, 0.05, 12, 600), (10, 0.05, 60, 1200), (1e-9, 0.05, 1, 20), (0.5, 1e9, 60, 30)],
)
def test_the_dearer_checkpoints_are_the_less_often_they_are_made(
    minutes: float, share: float, cost: float, seconds: float
):
    now = 1000.0
    interval = Interval(minutes, share, lambda: now)
    for _ in range(2):
        now += seconds - 0.01
        assert not interval.is_due(cost)
        now += 0.02
        assert interval.is_due(cost)
        interval.begin()


def test_a_file_of_tensors_is_read_as_it_was_written_also_by_safetensors(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype).t()  # not contiguous
        for dtype in DTYPES
    }
    tensors |= {"one": torch.tensor(3.5), "none": torch.empty(0, 4, dtype=torch.bfloat16)}
    path = tmp_path / "file.safetensors"
    write_tensors(path, tensors)
    with open_tensors(path) as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for read in (found, load_file(path)):
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
        assert all(read[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_copies_are_of_the_moment_and_take_memory_once():
    copies, weight = HostCopies(), torch.ones(4)
    first = copies.take({"weight": weight})["weight"]
    weight += 1
    assert first.tolist() == [1] * 4
    assert copies.take({"weight": weight})["weight"].data_ptr() == first.data_ptr()
    assert first.tolist() == [2] * 4
    too_much = torch.empty(free_memory(), dtype=torch.uint8, device="meta")
    assert copies.has_room({"weight": weight}, 1) and not copies.has_room({"more": too_much}, 1)


def test_the_state_is_what_is_trained_down_to_plain_tensors_in_place():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    frozen, trained = model[0].weight.requires_grad_(False), model[1].weight
    in_eight_bits = OptimState8bit.zeros((64, 64))
    optimizer = SimpleNamespace(state={trained: {"step": torch.tensor(1.0), "exp_avg": in_eight_bits, "other": None}})
    state = state_tensors(SimpleNamespace(_model=model, _optimizer=optimizer))
    assert state.keys() == {
        "model.1.weight",
        "optimizer.1.weight.step",
        *(f"optimizer.1.weight.exp_avg.{part}" for part in ("codes", "scale", "qmap")),
    }
    state["model.1.weight"].zero_()
    state["optimizer.1.weight.exp_avg.codes"].fill_(7)
    assert not trained.any() and frozen.any()
    assert bool((in_eight_bits.codes == 7).all())


def test_random_numbers_go_on():
    states = random_states(CPU)
    expected = torch.rand(3)
    torch.rand(5)
    restore_random(states, CPU)
    assert torch.equal(torch.rand(3), expected)


class Rows(torch.utils.data.Dataset):
    """Row numbers, of lengths that differ."""

    rows_a_step = 4
    seed = 3

    def __init__(self) -> None:
        self.lengths = [7 * number % 11 + 1 for number in range(26)]
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> int:
        self.read.append(index)
        return index


def epochs(done: int, said: list[str]) -> tuple[list[list[int]], Rows]:
    """The rows of two epochs in batches of two, the first of which is gone on with."""
    rows = Rows()
    loader = DataLoader(rows, batch_size=2, sampler=LengthSampler(rows), collate_fn=list, drop_last=True)
    updates = UpdateLoader(loader, 2, 6, done, lambda: said.append("begin"), lambda: said.append("update"))
    assert updates.dataset is rows
    found = []
    for epoch in range(2):
        updates.sampler.set_epoch(epoch)
        found.append([number for batch in updates for number in batch])
    return found, rows


def test_an_epoch_begins_where_it_was_left_and_tells_of_each_update_but_the_last():
    said: list[str] = []
    whole, _ = epochs(0, said)
    assert [len(epoch) for epoch in whole] == [24, 24]
    assert said == ["begin", *["update"] * 10]
    rest: list[str] = []
    found, rows = epochs(4, rest)
    assert found == [whole[0][16:], whole[1]]
    assert rows.read == [*found[0], *found[1]], "rows that are left out are not read"
    assert rest == ["begin", *["update"] * 6]


def test_the_room_for_two_checkpoints_inside_an_epoch_is_counted_unless_there_are_none():
    architecture = Architecture("builder", "lora_builder", "LLAMA3", {}, max_seq_len=64, tied=False)
    without, with_them = (
        bytes_to_write(TrainSettings(method="full", dtype="fp32", checkpoint_minutes=minutes), architecture, 1000)
        for minutes in (0.0, 10.0)
    )
    model = 4 * 1000
    assert without == model + model
    assert with_them == model + 2 * 3 * model


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def small_recipe() -> Any:
    """What of a recipe is looked at, after its seventh update."""
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    rows = Rows()
    loader = DataLoader(rows, batch_size=2, sampler=LengthSampler(rows), drop_last=True)
    return SimpleNamespace(
        _model=model,
        _optimizer=optimizer,
        _device=CPU,
        _dataloader=loader,
        _gradient_accumulation_steps=2,
        _steps_per_epoch=6,
        global_step=7,
        epochs_run=1,
    )


def test_a_checkpoint_that_cannot_be_written_costs_itself_and_not_the_training(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    training = tmp_path / "training"
    (training / "epoch_0").mkdir(parents=True)
    checkpoints = StepCheckpoints(small_recipe(), training, Interval(0, math.inf))

    def fill_up(path: Path, tensors: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    def two_updates() -> None:
        """Writes a step, then makes it appear or removes what there is of it."""
        for _ in range(2):
            checkpoints.after_update()
            wait([checkpoints._work] if checkpoints._work else [])

    with monkeypatch.context() as patched:
        patched.setattr(steps, "write_tensors", fill_up)
        two_updates()
    assert "is left out, the training goes on: [Errno 28] No space left on device" in capsys.readouterr().out
    assert [path.name for path in training.iterdir()] == ["epoch_0"]
    two_updates()
    checkpoints.after_update()
    assert newest_step(training) == Step(7, 1, 1)
    assert "checkpoint at step 7\n" in capsys.readouterr().out


def test_without_memory_for_copies_a_checkpoint_is_written_before_training_goes_on(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "epoch_0").mkdir()
    recipe = small_recipe()
    monkeypatch.setattr(HostCopies, "has_room", lambda *_: False)
    checkpoints = StepCheckpoints(recipe, tmp_path, Interval(0, math.inf))
    checkpoints.after_update()
    expected = {name: tensor.clone() for name, tensor in state_tensors(recipe).items()}
    found = load_file(step_file(staging_folder(tmp_path, 7), 0))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_steps_of_another_training_are_left_out_and_some_trainings_have_none(
    alone: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = staging_folder(tmp_path, 7)
    folder.mkdir()
    for rank in range(2):
        step_file(folder, rank).touch()
    (tmp_path / "epoch_0").mkdir()
    publish_step(tmp_path, Step(7, 1, 2))
    recipe, config = small_recipe(), SimpleNamespace(output_dir=str(tmp_path))
    keep_steps(recipe, config, 0)
    assert "is of another training and is left out" in capsys.readouterr().out
    assert len(list(recipe._dataloader)) == 12
    recipe._optimizer, loader = None, recipe._dataloader
    keep_steps(recipe, config, 10)
    assert "no checkpoints inside epochs: optimizer_in_bwd" in capsys.readouterr().out
    assert recipe._dataloader is loader
