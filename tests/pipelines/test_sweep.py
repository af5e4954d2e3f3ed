"""The compiled sweep runs here from end to end."""

import json
import shutil
from functools import partial
from pathlib import Path

import tiny
from local_runs import run_here
from transformers import AutoModelForCausalLM

from kfp_finetune.client.summary import read_summary
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.sweep.aim import Aim
from kfp_finetune.components.sweep.planning import plan_sweep
from kfp_finetune.components.sweep.search import Search
from kfp_finetune.components.sweep.sweep import Sweep
from kfp_finetune.results import COMPARISON, COMPARISON_REPORT, parse_result
from kfp_finetune.workspace import Workspace

PIPELINE = Path(__file__).parents[2] / "pipelines/sweep/pipeline.yaml"
SPACE = {"learning_rate": [1e-3, 2e-2], "lora_rank": [4, 8]}
SETTINGS = {"dtype": "fp32", "max_seq_len": 128, "held_out": "10%", "batch_size": 4}

run = partial(run_here, PIPELINE)


def plan_here(model: Path, data: Path, root: Path) -> Sweep:
    """The sweep that the pipeline is about to plan."""
    dataset, base = initialize_dataset(str(data), str(root)), initialize_model(str(model), str(root))
    return plan_sweep(dataset, base, "sweep", SETTINGS, Search(SPACE), Aim(), str(root))


def test_the_best_of_a_grid_is_exported_though_a_trial_fails_and_the_next_run_goes_on_with_that_one(tmp_path: Path):
    model, data = tiny.write_model(tmp_path / "model"), tiny.write_rows(tmp_path / "rows.jsonl", 60)
    root, given = tmp_path / "workspace", {"model": str(model), "dataset": str(data), "name": "sweep", "search": SPACE}
    sweep = plan_here(model, data, root)
    broken = root / sweep.trials[0].plan.training
    shutil.move(broken / "tokens", tmp_path / "aside")

    done = run(root, **given, **SETTINGS)
    assert done.returncode == 0, done.stdout
    assert "run-trial done" in done.stdout and "choose-best done" in done.stdout
    told = json.loads((root / "sweeps" / sweep.key / "comparison.json").read_text())
    losses = {trial["trial"]: trial["figures"]["loss"] for trial in told["trials"] if not trial["failure"]}
    assert losses.keys() == {2, 3, 4} and told["best"]["trial"] == min(losses, key=losses.__getitem__)
    exported = (root / "latest/sweep").resolve().name
    assert exported == told["best"]["training"] and [path.name for path in (root / "exports").glob("[!.]*")] == [
        exported
    ]
    summary = read_summary(Workspace(root), "sweep")
    assert summary.loss_after == losses[told["best"]["trial"]] < summary.loss_before
    _, info = AutoModelForCausalLM.from_pretrained(summary.export, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert [path.parent.name for path in root.glob("trainings/*/epoch_*")] == [exported]
    log = (root / "logs/local.log").read_text()
    assert "4 of 4 trials to run" in log
    results = {found.step: found for found in filter(None, (parse_result(line.strip()) for line in log.splitlines()))}
    assert results.keys() == {"plan", "choose", "evaluate", "export"}
    assert results["choose"].files.keys() == {COMPARISON, COMPARISON_REPORT}
    assert results["choose"].figures["failed_trials"] == 1
    page = Path(results["choose"].files[COMPARISON_REPORT]).read_text()
    assert "Trial 1 failed" in page and "<script" not in page and page.count("<svg") == 2

    shutil.move(tmp_path / "aside", broken / "tokens")
    again = run(root, **given, **SETTINGS)
    assert again.returncode == 0, again.stdout
    assert "1 of 4 trials to run" in (root / "logs/local.log").read_text()
    told = json.loads((root / "sweeps" / sweep.key / "comparison.json").read_text())
    assert not [trial for trial in told["trials"] if trial["failure"]]


def test_a_wrong_search_space_is_told_before_anything_runs(tmp_path: Path):
    search = {"lora_ranc": [4], "epochs": {"min": 1, "max": 3}, "learning_rate": [0.1, 5]}
    result = run(tmp_path, model=str(tmp_path), dataset=str(tmp_path), search=search, metric="accuracy")
    printed = " ".join((result.stdout + result.stderr).split())
    assert result.returncode == 2, printed
    for named in ("Did you mean lora_rank?", "search.learning_rate: given 5", "metric: given 'accuracy'"):
        assert named in printed
    assert "Traceback" not in printed and not (tmp_path / "logs").exists()
