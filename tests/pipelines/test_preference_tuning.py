"""The compiled pipeline for preferences runs here from end to end."""

from functools import partial
from pathlib import Path

import preferences
import pytest
import tiny
import torch
from local_runs import run_here
from transformers import AutoModelForCausalLM

from kfp_finetune.client.summary import read_summary
from kfp_finetune.results import parse_result
from kfp_finetune.workspace import Workspace

ROOT = Path(__file__).parents[2]
run = partial(run_here, ROOT / "pipelines/preference_tuning/pipeline.yaml")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("base") / "model")


def test_the_pipeline_runs_from_pairs_to_a_model_that_prefers_the_better_answers_and_then_has_nothing_to_do(
    base: Path, tmp_path: Path
):
    renamed = [
        {"question": row["prompt"], "good": row["chosen"], "bad": row["rejected"]} for row in preferences.rows(100)
    ]
    settings = {
        "model": str(base),
        "dataset": str(preferences.write(tmp_path / "pairs.jsonl", renamed)),
        "column_map": {"prompt": "question", "chosen": "good", "rejected": "bad"},
        "held_out": "20%",
        "dtype": "fp32",
        "max_seq_len": 128,
        "batch_size": 4,
        "learning_rate": 0.005,
        "beta": 0.2,
        "num_procs_per_node": 1,
        "gate": {"min_reward_accuracy": 0.8, "min_reward_margin": 0.1},
        "export": {"quantize": "int8", "max_perplexity_increase": 1},
    }
    first = run(tmp_path / "workspace", **settings)
    assert first.returncode == 0, first.stdout
    assert "plan-preferences done" in first.stdout and "rewards/accuracies" in first.stdout
    summary = read_summary(Workspace(tmp_path / "workspace"), "preference")
    assert summary.figures_before["reward_accuracy"] == 0.5 and summary.figures_after["reward_accuracy"] > 0.8
    assert summary.loss_after < summary.loss_before - 0.1
    model, info = AutoModelForCausalLM.from_pretrained(summary.export, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert summary.adapter is not None and (summary.adapter / "adapter_model.safetensors").exists()
    card = (summary.export.parent / "README.md").read_text()
    assert "fine-tuned on preferences in" in card and "| Learned | preferences: dpo, beta 0.2 |" in card
    assert "| `reward_accuracy` | 0.5 |" in card
    log = (tmp_path / "workspace/logs/local.log").read_text()
    results = list(filter(None, (parse_result(line.strip()) for line in log.splitlines())))
    assert [result.step for result in results] == ["plan", "train", "evaluate", "export"]
    assert results[2].figures["reward_accuracy_after"] == pytest.approx(
        summary.figures_after["reward_accuracy"], abs=1e-3
    )

    again = run(tmp_path / "workspace", **settings)
    assert again.returncode == 0, again.stdout
    assert "torchtune-train" not in again.stdout

    stricter = run(tmp_path / "workspace", **{**settings, "gate": {"min_reward_margin": 99}})
    assert stricter.returncode != 0 and "gate.min_reward_margin" in stricter.stdout + stricter.stderr


BAD = {
    "a method that there is not for preferences": ({"method": "qlora"}, "method: given 'qlora'"),
    "a figure that pairs do not have": ({"gate": {"max_perplexity": 3}}, "gate: given 'max_perplexity'"),
    "a column that is not there": ({"column_map": {"chosen": "good"}}, "column_map.chosen"),
    "rows without pairs": ({"dataset": "rows"}, "column_map.chosen"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_message_and_status_2(case: str, base: Path, tmp_path: Path):
    changes, named = BAD[case]
    data = preferences.write(tmp_path / "pairs.jsonl", preferences.rows(40))
    if changes.get("dataset"):
        changes = {"dataset": str(tiny.write_rows(tmp_path / "rows.jsonl", 40))}
    result = run(tmp_path / "workspace", **{"model": str(base), "dataset": str(data), "max_seq_len": 128, **changes})
    printed = result.stdout + result.stderr
    assert result.returncode == 2, printed
    assert named in printed.replace("\n", "") and "Traceback" not in printed
    assert not list((tmp_path / "workspace").glob("trainings/[!.]*"))
