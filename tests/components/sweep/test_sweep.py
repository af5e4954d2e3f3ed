"""Sweeps of a tiny model: planned, really trained with a failure among them, compared, and cleaned up after."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import given
import pytest
from crafted_runs import make_evaluation
from given import SETTINGS, Given

from kfp_finetune.components.export_model.export import export
from kfp_finetune.components.sweep.aim import Aim
from kfp_finetune.components.sweep.attempt import attempt
from kfp_finetune.components.sweep.choice import choose_best
from kfp_finetune.components.sweep.measured import DROPPED_NAME
from kfp_finetune.components.sweep.planning import plan_sweep, trials_to_run
from kfp_finetune.components.sweep.running import evaluate_trial, run_trial
from kfp_finetune.components.sweep.search import Search
from kfp_finetune.components.sweep.sweep import Sweep, Trial, read_sweep
from kfp_finetune.errors import StepError, UserError
from kfp_finetune.series import prune_series
from kfp_finetune.training.epochs import whole_epochs
from kfp_finetune.training.gate import failed_bounds
from kfp_finetune.training.planning import Asked
from kfp_finetune.workspace import open_workspace


@pytest.fixture
def ready(tmp_path: Path) -> Given:
    return given.start(tmp_path)


def plan(ready: Given, space: dict[str, Any], aim: Aim | None = None, **settings: Any) -> Sweep:
    arguments = (ready.dataset, ready.model, "series", SETTINGS | settings)
    return plan_sweep(*arguments, Search(space), aim or Aim(), str(ready.root))


def folder(ready: Given, trial: Trial) -> Path:
    return ready.root / trial.plan.training


def finish(ready: Given, trial: Trial, loss: float, **changes: Any) -> None:
    """Leaves what a trial of one epoch leaves, without training."""
    training = folder(ready, trial)
    epoch = training / "epoch_0"
    epoch.mkdir()
    (epoch / "model.safetensors").write_bytes(b"weights")
    evaluation = make_evaluation() | {"loss_after": loss, "benchmarks": {}, "epoch": "epoch_0"} | changes
    (training / "evaluation.json").write_text(json.dumps(evaluation))


def has_model(ready: Given, trial: Trial) -> bool:
    return (folder(ready, trial) / "epoch_0").exists()


def test_combinations_that_train_the_same_are_one_trial_and_rows_become_tokens_once(ready: Given):
    """A learning rate of 0 means 3e-4, and a full training has no rank."""
    sweep = plan(ready, {"learning_rate": [0, 3e-4, 1e-2], "method": ["lora"]})
    assert [trial.values["learning_rate"] for trial in sweep.trials] == [0, 1e-2]
    assert len(plan(ready, {"method": ["full"], "lora_rank": [4, 8, 16]}).trials) == 1
    first, second = (sorted((folder(ready, trial) / "tokens").rglob("*.arrow")) for trial in sweep.trials)
    assert first and [path.stat().st_ino for path in first] == [path.stat().st_ino for path in second]
    configs = [(folder(ready, trial) / "config.yaml").read_text() for trial in sweep.trials]
    for trial, config in zip(sweep.trials, configs, strict=True):
        assert f"{trial.plan.key}/tokens/train" in config
    assert sweep == Sweep.from_json(sweep.to_json()) == read_sweep(ready.root / "sweeps" / sweep.key)
    assert [Trial.from_json(trial.to_json()) for trial in sweep.trials] == list(sweep.trials)


def test_what_is_wrong_with_any_trial_is_one_message_before_anything_is_written(ready: Given):
    space = {"method": ["lora", "qlora"], "lora_rank": [4, 8]}
    advanced = {"fsdp_cpu_offload": True, "enable_activation_offloading": True}
    with pytest.raises(UserError) as error:
        plan(ready, space, advanced=advanced, max_seq_len=100_000)
    offload, of_all = (
        [problem for problem in error.value.problems if problem.what == name]
        for name in ("fsdp_cpu_offload", "max_seq_len")
    )
    assert len(offload) == 1 and 'with method "qlora"' not in offload[0].given
    assert "with method qlora, lora_rank 4, and 1 more" in offload[0].given
    assert len(of_all) == 1 and "with" not in of_all[0].given
    assert not (ready.root / "trainings").exists() and not (ready.root / "sweeps").exists()


def test_what_the_rows_say_against_a_trial_is_told_with_that_trial(ready: Given):
    with pytest.raises(UserError, match="with batch_size 64") as error:
        plan(ready, {"batch_size": [4, 64, 128]})
    assert len(error.value.problems) == 2 and not (ready.root / "sweeps").exists()


def test_a_sweep_needs_room_for_all_of_its_trials(ready: Given, monkeypatch: pytest.MonkeyPatch):
    free = shutil.disk_usage(ready.root)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    plan(ready, {"learning_rate": [1e-3]})
    with pytest.raises(UserError, match="the checkpoints of 8 trials and the export"):
        plan(ready, {"learning_rate": [1e-3 * n for n in range(1, 9)]})


def test_the_room_and_the_memory_are_those_of_the_trials_that_need_most(
    ready: Given, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    free = shutil.disk_usage(ready.root)._replace(free=1_000_000)
    many = Search({"learning_rate": [number * 1e-5 for number in range(1, 21)], "method": ["full"]})
    needed = []
    for most in (1, 20):
        with monkeypatch.context() as patch, pytest.raises(UserError, match="the checkpoints of 20 trials") as refused:
            patch.setattr(shutil, "disk_usage", lambda _: free)
            arguments = (ready.dataset, ready.model, "series", SETTINGS, many, Aim(), str(ready.root))
            plan_sweep(*arguments, max_parallel=most)
        needed.append(refused.value.problems[0].allowed)
    assert needed[0] < needed[1]
    plan(ready, {"lora_rank": [4, 1024, 8]})
    told = [line for line in capsys.readouterr().out.splitlines() if "expected on one GPU" in line]
    assert len(told) == 1 and told[0].startswith("trial 2 (lora_rank 1024")


def test_trials_are_trained_compared_and_forgotten_but_for_their_figures(ready: Given):
    """One whose rows are gone fails; the best of the others is exported, and found again by the next sweep."""
    root = str(ready.root)
    sweep = plan(ready, {"learning_rate": [1e-4, 2e-2, 1e-3]})
    worst, best, broken = sweep.trials
    shutil.move(folder(ready, broken) / "tokens", ready.root / "aside")
    assert trials_to_run(sweep, root) == list(sweep.trials)
    outcomes = [run_trial(trial, root) for trial in sweep.trials]
    assert [bool(outcome.failure) for outcome in outcomes] == [False, False, True]

    found = choose_best(sweep, root)
    assert found.best.trial == best and found.plan.key == best.plan.key
    told = json.loads((ready.root / "sweeps" / sweep.key / "comparison.json").read_text())
    assert told["best"] == {"trial": 2, "training": best.plan.key, "values": {"learning_rate": 2e-2}}
    losses = [trial["figures"].get("loss") for trial in told["trials"]]
    assert losses[:2] == [outcome.evaluation.loss_after for outcome in outcomes[:2]] and losses[2] is None
    assert "tokens" in told["trials"][2]["failure"] and told["trials"][0]["tokens_per_second"] > 0
    page = (ready.root / "sweeps" / sweep.key / "report.html").read_text()
    assert "The best is trial 2" in page and "Trial 3 failed (learning_rate 0.001)" in page and page.count("<svg") == 1
    assert [has_model(ready, trial) for trial in sweep.trials] == [False, True, False]
    assert {"metrics.jsonl", "report.html", DROPPED_NAME} <= {path.name for path in folder(ready, worst).iterdir()}
    assert export(found.plan, "series", root).key == best.plan.key

    again = plan(ready, {"learning_rate": [1e-4, 2e-2, 1e-3]})
    assert again.key == sweep.key
    assert [trial.number for trial in trials_to_run(again, root)] == [3]
    shutil.move(ready.root / "aside", folder(ready, broken) / "tokens")
    assert not run_trial(again.trials[2], root).failure
    assert not [result.failure for result in choose_best(again, root).results if result.failure]

    upside_down = plan(ready, {"learning_rate": [1e-4, 2e-2, 1e-3]}, Aim("loss", less_is_better=False))
    (gone,) = trials_to_run(upside_down, root)
    assert gone.plan.key == worst.plan.key
    retrained = run_trial(gone, root)
    assert retrained.evaluation.loss_after == pytest.approx(losses[0], abs=1e-4)
    assert choose_best(upside_down, root).best.trial.plan.key == worst.plan.key
    assert has_model(ready, best), "it is exported"


def test_where_nothing_is_left_to_run_there_is_the_best_for_the_loop(ready: Given):
    sweep = plan(ready, {"learning_rate": [1e-3, 1e-2]})
    for trial, loss in zip(sweep.trials, (2.0, 1.0), strict=True):
        finish(ready, trial, loss)
    assert [trial.number for trial in trials_to_run(sweep, str(ready.root))] == [2]
    choose_best(sweep, str(ready.root))
    assert [trial.number for trial in trials_to_run(sweep, str(ready.root))] == [2]


def test_one_of_many_is_chosen_by_the_figure_and_a_loss_that_is_no_number_never(ready: Given):
    sweep = plan(ready, {"learning_rate": [1e-4, 1e-3, 1e-2]})
    for trial, loss in zip(sweep.trials, (math.nan, 1.5, 2.0), strict=True):
        finish(ready, trial, loss)
    found = choose_best(sweep, str(ready.root), keep_trials=True)
    assert found.best.trial.number == 2 and "diverged" in found.results[0].failure
    assert all(has_model(ready, trial) for trial in sweep.trials)
    written = (ready.root / "sweeps" / sweep.key / "comparison.json").read_text()
    assert "NaN" not in written and json.loads(written)["trials"][0]["figures"]["loss"] is None


def test_tasks_are_run_by_every_trial_only_if_their_figure_decides(ready: Given):
    tasks = {"tasks": ["t"], "limit": 1}
    for metric, expected in ("loss", {}), ("t.acc", tasks):
        aim = Aim(metric, less_is_better=False)
        sweep = plan_sweep(
            ready.dataset, ready.model, "series", SETTINGS, Search({"learning_rate": [1e-3]}), aim, str(ready.root),
            asked=Asked(tasks),
        )  # fmt: skip
        (trial,) = sweep.trials
        assert trial.plan.evaluation == expected and sweep.evaluation == tasks
    finish(ready, trial, 1.0)
    assert trials_to_run(sweep, str(ready.root)) == [trial], "it was not put to the tasks"
    benchmarks = {"t": {"acc": {"base": 0.1, "tuned": 0.4, "stderr": None}}}
    (folder(ready, trial) / "epoch_0/model.safetensors").unlink()
    (folder(ready, trial) / "epoch_0").rmdir()
    finish(ready, trial, 1.0, benchmarks=benchmarks, tasks=tasks)
    found = choose_best(sweep, str(ready.root))
    assert found.figure(found.best) == 0.4 and found.plan.evaluation == tasks


def test_where_no_trial_succeeds_the_message_says_why_each_failed(ready: Given):
    sweep = plan(ready, {"learning_rate": [1e-3, 1e-2, 2e-2]})
    for trial, failure in zip(sweep.trials, ("the node was lost", "out of memory"), strict=False):
        assert evaluate_trial(trial, failure, str(ready.root)).failure == failure
    with pytest.raises(StepError) as error:
        choose_best(sweep, str(ready.root))
    for part in ("none of 3", "the node was lost", "out of memory", "learning_rate 0.02", "run the sweep again"):
        assert part in str(error.value)


def test_a_model_that_somebody_needs_outlives_the_choice(ready: Given):
    sweep = plan(ready, {"learning_rate": [1e-4, 1e-3, 1e-2]})
    other = plan(ready, {"learning_rate": [1e-3, 2e-2]})
    for trial, loss in zip(sweep.trials, (3.0, 2.0, 1.0), strict=True):
        finish(ready, trial, loss)
    choose_best(sweep, str(ready.root))
    assert [has_model(ready, trial) for trial in sweep.trials] == [False, True, True]
    finish(ready, other.trials[1], 1.5)
    choose_best(other, str(ready.root))
    assert not has_model(ready, sweep.trials[1])


def test_losers_are_the_first_to_go_and_waiting_trials_stay(ready: Given):
    workspace = open_workspace(str(ready.root))
    before = ready.plan(learning_rate=5e-2).plan.key
    sweep = plan(ready, {"learning_rate": [1e-4, 1e-3]})
    assert prune_series(workspace, "series", 1) == [] and all(folder(ready, trial).exists() for trial in sweep.trials)
    for trial, loss in zip(sweep.trials, (2.0, 1.0), strict=True):
        finish(ready, trial, loss)
    choose_best(sweep, str(ready.root))
    assert prune_series(workspace, "series", 2) == [sweep.trials[0].plan.key]
    assert workspace.training(before).exists() and folder(ready, sweep.trials[1]).exists()


def test_a_dropped_evaluation_lets_nothing_through_a_gate(ready: Given):
    sweep = plan(ready, {"learning_rate": [1e-4, 1e-3]})
    for trial, loss in zip(sweep.trials, (2.0, 1.0), strict=True):
        finish(ready, trial, loss)
    found = choose_best(sweep, str(ready.root))
    assert not whole_epochs(folder(ready, sweep.trials[0]))
    with pytest.raises(UserError, match="not evaluated"):
        export(sweep.trials[0].plan, "series", str(ready.root), gate={"max_loss": 3})
    assert failed_bounds(
        {"max_loss": 0.5}, json.loads((folder(ready, found.best.trial) / "evaluation.json").read_text())
    )


def test_a_crash_is_a_result_with_its_reason(capsys: pytest.CaptureFixture[str]):
    def crash() -> None:
        raise RuntimeError("\n".join(map(str, range(100))))

    outcome, failure = attempt(crash)
    assert outcome is None and failure.splitlines()[-1] == "99" and len(failure.splitlines()) == 20
    assert "Traceback" in capsys.readouterr().err
