"""Steps on a volume: whole or absent, and gone once nobody needs them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from children import killed_at

from kfp_finetune.training.steps import (
    STEP_NAME,
    Step,
    drop_steps,
    newest_step,
    publish_step,
    staging_folder,
    step_file,
    step_folder,
    sweep_steps,
)


def write(training: Path, number: int, epoch: int = 0, processes: int = 2) -> Step:
    """What the processes of a training leave before a step appears."""
    folder = staging_folder(training, number)
    folder.mkdir(parents=True)
    for rank in range(processes):
        step_file(folder, rank).write_bytes(bytes(100 + rank))
    return Step(number, epoch, processes)


def publish(training: Path, number: int, epoch: int = 0) -> Step:
    step = write(training, number, epoch)
    publish_step(training, step)
    return step


def test_a_newer_step_takes_the_place_of_the_older(tmp_path: Path):
    assert newest_step(tmp_path) is None
    publish(tmp_path, 9)
    newer = publish(tmp_path, 10)
    assert newest_step(tmp_path) == newer == Step(10, 0, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_10"]
    drop_steps(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_step_without_the_file_of_each_process_does_not_appear(tmp_path: Path):
    older = publish(tmp_path, 3)
    step = write(tmp_path, 5)
    step_file(staging_folder(tmp_path, 5), 1).unlink()
    with pytest.raises(OSError, match="rank-1"):
        publish_step(tmp_path, step)
    assert newest_step(tmp_path) == older


def test_a_step_of_an_epoch_that_is_whole_is_not_gone_on_from(tmp_path: Path):
    publish(tmp_path, 3, epoch=0)
    (tmp_path / "epoch_0").mkdir()
    assert newest_step(tmp_path) is None
    sweep_steps(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_0"]
    step = publish(tmp_path, 14, epoch=1)
    assert newest_step(tmp_path) == step


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: step_file(folder, 0).write_bytes(bytes(50)),
        lambda folder: step_file(folder, 1).unlink(),
        lambda folder: (folder / STEP_NAME).unlink(),
        lambda folder: (folder / STEP_NAME).write_text("{"),
        lambda folder: (folder / STEP_NAME).write_text("[]"),
        lambda folder: (folder / STEP_NAME).write_text('{"bytes": {}, "number": 3, "epoch": 0, "processes": 2}'),
        lambda folder: change(folder, "format", 0),
        lambda folder: change(folder, "processes", 3),
    ],
    ids=["cut", "missing", "no manifest", "half a manifest", "a list", "no files", "format", "processes"],
)
def test_a_step_that_is_not_whole_is_left_out_with_a_line(
    harm: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    publish(tmp_path, 3)
    harm(step_folder(tmp_path, 3))
    assert newest_step(tmp_path) is None
    sweep_steps(tmp_path)
    assert capsys.readouterr().out == "step_3 is not whole and is left out\n"
    assert not [*tmp_path.iterdir()]


def change(folder: Path, name: str, value: int) -> None:
    path = folder / STEP_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


def test_whenever_the_process_is_killed_one_whole_step_is_there(tmp_path: Path):
    moment = 0
    while True:
        training = tmp_path / str(moment)
        older = publish(training, 3)
        newer = write(training, 5)
        if not killed_at(moment, lambda step=newer, where=training: publish_step(where, step)):
            break
        assert newest_step(training) in (older, newer)
        sweep_steps(training)
        assert len([*training.iterdir()]) == 1
        moment += 1
    assert moment > 5
