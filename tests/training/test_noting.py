"""What a training ran on is noted by its first process, and noting never ends a training."""

import platform
from pathlib import Path

import pytest
import torch

from kfp_finetune.training import noting
from kfp_finetune.training.environment import ENVIRONMENT_NAME, IMAGE_VARIABLE, read_environment
from kfp_finetune.training.measure import measure
from kfp_finetune.training.noting import note_end, note_environment


def test_versions_machine_and_processes_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    processes = {"RANK": "0", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2", IMAGE_VARIABLE: "registry/image:1"}
    for name, value in processes.items():
        monkeypatch.setenv(name, value)
    note_environment(tmp_path, "transformers")
    found = read_environment(tmp_path)
    assert found is not None
    assert found.versions["Python"] == platform.python_version() and found.versions["torch"] == torch.__version__
    assert set(found.versions) >= {"kfp-finetune", "transformers"} and "torchtune" not in found.versions
    assert (found.nodes, found.processes, found.image) == (3, 6, "registry/image:1")
    assert found.cpu and found.cpus >= 1 and found.memory_gib > 0.5
    assert bool(found.gpu) == torch.cuda.is_available()
    assert (found.attempts, found.began, found.ended) == (1, found.started, "")
    shown = dict(found.facts())
    assert shown["Machines"] == "3" and shown["Image"] == "registry/image:1" and "Took" not in shown


def test_another_attempt_keeps_when_the_first_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(noting, "_now", lambda: "2026-01-02T03:04:05+00:00")
    note_environment(tmp_path)
    monkeypatch.setattr(noting, "_now", lambda: "2026-01-02T04:04:05+00:00")
    note_environment(tmp_path)
    monkeypatch.setattr(noting, "_now", lambda: "2026-01-02T04:05:10+00:00")
    note_end(tmp_path)
    found = read_environment(tmp_path)
    assert found is not None and found.attempts == 2
    shown = dict(found.facts())
    assert (shown["Began"], shown["Ended"]) == ("2026-01-02 03:04 UTC", "2026-01-02 04:05 UTC")
    assert (shown["Took"], shown["Attempts"]) == ("1 min 5 s", "2")


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    note_environment(tmp_path)
    assert not list(tmp_path.iterdir())


def test_noting_never_ends_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    note_environment(tmp_path / "absent")
    note_environment(tmp_path, "no-such-distribution")
    assert capsys.readouterr().out.count("was not noted") == 2
    note_end(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / ENVIRONMENT_NAME).write_text('{"of": "another version"}')
    assert read_environment(tmp_path) is None
    note_environment(tmp_path)
    assert read_environment(tmp_path) is not None


def test_a_containers_limits_are_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cpus, memory = tmp_path / "cpu.max", tmp_path / "memory.max"
    cpus.write_text("100000 100000\n")
    memory.write_text(f"{2**29}\n")
    monkeypatch.setattr(noting, "CPU_LIMIT", cpus)
    monkeypatch.setattr(noting, "MEMORY_LIMIT", memory)
    assert (noting._cpus(), noting.memory_bytes()) == (1, 2**29)
    cpus.write_text("max 100000\n")
    memory.write_text("max\n")
    assert noting.memory_bytes() > 2**29 and noting._cpus() >= 1


def test_a_peak_that_was_seen_before_the_count_began_anew_is_not_lost():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert measure(10, 2.0, on_gpu=False, peak_gib=5000.0).peak_memory_gib == 5000
        assert 0 < measure(10, 2.0, on_gpu=False).peak_memory_gib < 5000
    finally:
        torch.distributed.destroy_process_group()
