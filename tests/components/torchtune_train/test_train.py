"""Real trainings with torchtune's own recipes: they learn, go on after a kill, and appear whole."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from given import Given, start
from safetensors.torch import load_file

from kfp_finetune.components.torchtune_train.checkpoints import resume_settings
from kfp_finetune.components.torchtune_train.metrics import MetricsFile
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.launch.process import LaunchError
from kfp_finetune.metrics import read_metrics
from kfp_finetune.training.environment import read_environment
from kfp_finetune.training.epochs import drop_surplus, finished_epochs, newest_epoch, whole_epochs
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.start import parse_start


def losses(found: Given, plan: Plan) -> list[float]:
    return [row["loss"] for row in read_metrics(found.root / plan.training / "metrics.jsonl")]


KILLED_WHEN_AN_EPOCH_APPEARS = textwrap.dedent("""
    import os, pathlib, signal, sys, threading
    from kfp_finetune.training.plan import Plan
    from kfp_finetune.components.torchtune_train.train import train
    training, root = pathlib.Path(sys.argv[1]), sys.argv[2]

    def kill_once_an_epoch_is_there():
        while not (training / "epoch_0").exists():
            threading.Event().wait(0.002)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill_once_an_epoch_is_there).start()
    train(Plan.from_json((training / "plan.json").read_text()), root)
""")


@pytest.mark.parametrize(("method", "family", "procs"), [("dora", "qwen2", 1), ("full", "llama", 2)])
@pytest.mark.usefixtures("no_interpreter_taken_down")
def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(
    method: str, family: str, procs: int, tmp_path: Path
):
    settings = {"method": method, "epochs": 2, "num_procs_per_node": procs, "batch_size": 4 // procs}
    whole, killed = start(tmp_path / "a", family), start(tmp_path / "b", family)
    plan = whole.plan(**settings).plan
    assert killed.plan(**settings).plan.key == plan.key
    summary = train(plan, str(whole.root))
    assert summary.steps == plan.total_steps == 18
    assert losses(whole, plan)[-1] < losses(whole, plan)[0] - 0.5

    training = killed.root / plan.training
    (training / ".tmp-epoch_7-leftover").mkdir()
    victim = subprocess.run(
        [sys.executable, "-c", KILLED_WHEN_AN_EPOCH_APPEARS, str(training), str(killed.root)], capture_output=True
    )
    assert victim.returncode == -signal.SIGKILL, victim.stderr.decode()
    assert list(whole_epochs(training)) == [0]
    assert killed.plan(**settings).state == "resume"
    train(plan, str(killed.root))
    assert losses(killed, plan) == pytest.approx(losses(whole, plan), abs=1e-6)
    assert not list(training.glob(".tmp-*"))
    assert not workers_of(training)


def workers_of(training: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(training).encode() in process.read_bytes() and process.parent.name != str(os.getpid()):
                found.append(process.parent.name)
        except OSError:
            continue
    return found


def test_a_finished_training_is_not_run_again_and_its_folder_tells_all(tmp_path: Path):
    found = start(tmp_path)
    plan = found.plan().plan
    first = train(plan, str(found.root))
    training = found.root / plan.training
    before = {path: path.stat().st_mtime_ns for path in training.rglob("*") if path.is_file() and path.name != ".lock"}
    assert train(plan, str(found.root)) == first
    after = {path: path.stat().st_mtime_ns for path in training.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == after

    result = json.loads((training / "result.json").read_text())
    assert result["world_size"] == 1 and result["device"]
    assert abs(result["tokens"] - plan.train["tokens"]) <= 2 * 4 * 128, "one incomplete batch at most is left out"
    assert first.tokens_per_second == pytest.approx(result["tokens"] / result["seconds"], rel=0.01)
    assert "<svg" in (training / "training.html").read_text()
    (training / "result.json").unlink()
    late = train(plan, str(found.root))
    assert (late.final_loss, late.steps, late.device) == (first.final_loss, first.steps, "unknown")
    assert late.tokens == pytest.approx(first.tokens, rel=0.05) and late.tokens_per_second > 0
    epoch = newest_epoch(training)
    assert epoch is not None
    assert {path.name for path in (epoch / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.pt",
        "adapter_model.safetensors",
    }
    assert not [path.name for path in epoch.iterdir() if path.name.startswith("adapter_")]
    assert (training / "config.yaml").read_text().startswith("# Fine-tuning with torchtune's lora recipe")


def test_one_step_already_trains_and_is_logged_with_the_rate_it_was_made_with(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    found = start(tmp_path)
    plan = found.plan(advanced={"max_steps_per_epoch": 1, "warmup_ratio": 0.0}).plan
    assert train(plan, str(found.root)).steps == 1
    (began,) = filter(None, map(parse_start, capfd.readouterr().out.splitlines()))
    assert min(began.imports, began.load, began.first_step) > 0
    (row,) = read_metrics(found.root / plan.training / "metrics.jsonl")
    assert row["lr"] == pytest.approx(5e-3)
    assert row["grad_norm"] > 0 and row["peak_memory_host"] > 0.1
    environment = read_environment(found.root / plan.training)
    assert environment is not None and {"torch", "torchtune", "torchao"} < environment.versions.keys()
    assert (environment.attempts, environment.processes) == (1, 1) and environment.ended >= environment.began
    adapter = load_file(found.root / plan.training / "epoch_0" / "adapter" / "adapter_model.safetensors")
    assert all(bool((tensor != 0).any()) for name, tensor in adapter.items() if "lora_B" in name)


def test_a_training_goes_on_where_its_volume_is_mounted_now(tmp_path: Path):
    found = start(tmp_path)
    plan = found.plan().plan
    moved = replace(found, root=found.root.rename(tmp_path / "elsewhere"))
    assert moved.plan().plan == plan
    assert train(plan, str(moved.root)).steps == plan.total_steps
    assert not found.root.exists()
    assert newest_epoch(moved.root / plan.training) is not None


def test_a_training_that_fails_says_why_and_leaves_its_report(tmp_path: Path):
    found = start(tmp_path)
    plan = found.plan().plan
    tokens = found.root / plan.training / "tokens" / "train"
    (tokens / "state.json").unlink()
    with pytest.raises(LaunchError, match=r"FileNotFoundError.*tokens"):
        train(plan, str(found.root))
    page = (found.root / plan.training / "training.html").read_text()
    assert "FileNotFoundError" in page


def test_the_command_in_the_header_runs_the_training_by_hand(tmp_path: Path):
    found = start(tmp_path)
    plan = found.plan().plan
    training = found.root / plan.training
    header = [line for line in (training / "config.yaml").read_text().splitlines() if line.startswith("#   ")]
    command = " ".join(line.lstrip("# ").rstrip("\\") for line in header).split()
    command[0] = str(Path(sys.executable).parent / command[0])
    subprocess.run(command, check=True, capture_output=True)
    assert newest_epoch(training) is not None
    assert yaml.safe_load((training / "config.yaml").read_text())["device"] == "auto"


def test_older_epochs_go_once_newer_ones_are_whole(tmp_path: Path):
    for number in range(4):
        (tmp_path / f"epoch_{number}").mkdir()
        (tmp_path / f"epoch_{number}" / "recipe_state.pt").touch()
        (tmp_path / f"epoch_{number}" / "model.safetensors").touch()
    (tmp_path / "epoch_3" / "recipe_state.pt").unlink()
    drop_surplus(tmp_path, keep_last_n=0)
    assert list(whole_epochs(tmp_path)) == [0, 1, 2, 3]
    assert [path.parent.name for path in tmp_path.glob("*/recipe_state.pt")] == ["epoch_2"]
    drop_surplus(tmp_path, keep_last_n=2)
    assert {path.name for path in tmp_path.iterdir()} == {"epoch_2", "epoch_3"}
    assert finished_epochs(tmp_path) == 4
    assert finished_epochs(tmp_path / "absent") == 0


def test_only_whole_epochs_are_gone_on_from(tmp_path: Path):
    for name in ("epoch_0", "epoch_1", ".tmp-epoch_2-ab", "epoch_x", "epoch_10"):
        (tmp_path / name).mkdir()
    (tmp_path / "epoch_1" / "recipe_state.pt").touch()
    assert list(whole_epochs(tmp_path)) == [0, 1, 10]
    assert newest_epoch(tmp_path) == tmp_path / "epoch_10"
    assert resume_settings(tmp_path)["checkpointer"]["recipe_checkpoint"] == str(tmp_path / "epoch_1/recipe_state.pt")
    assert resume_settings(tmp_path / "epoch_0") == {}


def test_the_most_memory_of_any_step_is_remembered(tmp_path: Path):
    metrics = MetricsFile(str(tmp_path / "metrics.jsonl"), 3)
    for step, memory in enumerate([10.0, 30.0, 20.0], start=1):
        metrics.log_dict({"loss": 1.0, "peak_memory_alloc": memory}, step)
    assert metrics.peak_memory_gib == 30


def test_a_half_written_line_of_metrics_is_left_out_and_the_last_of_a_step_counts(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 2, "loss": 1}\n{"step": 3, "lo')
    assert [row["loss"] for row in read_metrics(file)] == [3, 1]
    assert read_metrics(tmp_path / "absent") == []
