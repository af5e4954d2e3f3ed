"""The report on a run says what came of it first, has all that the steps left, and leaves out what they did not."""

import json
import re
from pathlib import Path

import pytest
from crafted_runs import leave_run, make_evaluation, make_plan, make_steps

from kfp_finetune.metrics import METRICS_NAME
from kfp_finetune.training.report import run_report


def text_of(page: str) -> str:
    """What a reader sees: the tags taken out."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def test_the_verdict_comes_first_and_every_part_follows(tmp_path: Path):
    leave_run(tmp_path)
    page = run_report(make_plan(base="org/base", dataset="org/rows"), tmp_path, make_evaluation())
    seen = text_of(page)
    wanted = (
        *("Fine-tuning of org/base", "org/rows", "The tuned model is better than its base"),
        "Loss on 8 held-out rows went from 3.250 to 1.500 (lower is better).",
        *("Loss 3.250 → 1.500 −1.750 (−53.8%), better", "Result", "Perplexity (lower is better) 25.790 4.482"),
        *("On 8 held-out rows, 1,234 tokens", "epoch 2 of 3", "Benchmarks", "Answers", "Loss of the held-out rows"),
        *("Last step 50", "Peak GPU memory 31.25 GiB", "Peak host memory 4.5 GiB", "Tokens read 98,765"),
        *("Peak memory of any process 33.5 GiB", "Learning rate", "Throughput", "Gradient norm"),
        *("Data", "Length of the rows", "Rows cut", "Settings", "batch_size 4", "Environment"),
        *("Began 2026-01-02 03:04 UTC", "Took 1 h 2 min", "80 GiB", "torch 2.13.0"),
    )
    places = [seen.find(words) for words in wanted]
    assert -1 not in places, wanted[places.index(-1)]
    order = [seen.find(f" {words} ") for words in ("Run Base model", "Result", "Training Training", "Data Length")]
    assert order == sorted(order) and order[0] > places[2]
    assert page.count("<svg") == 8
    assert "overrides" not in seen and "split" not in seen, "settings without a value"
    assert "Sample rows" not in seen, "the same rows are among the answers"


def test_what_is_absent_is_left_out(tmp_path: Path):
    seen = text_of(run_report(make_plan(train={"rows": 3}, held_out={}), tmp_path, {}))
    assert "Not evaluated" in seen and "Rows to train on 3" in seen
    for title in ("Result", "Benchmarks", "Answers", "Data", "Settings", "Environment", "Nothing recorded", "NaN"):
        assert not re.search(rf"\b{title}\b", seen)
    leave_run(tmp_path)
    assert "Sample rows" in text_of(run_report(make_plan(), tmp_path, {}))


def test_benchmarks_stand_beside_each_other_and_noise_is_called_so(tmp_path: Path):
    seen = text_of(run_report(make_plan(), tmp_path, make_evaluation()))
    assert "arc_easy: acc (higher is better) 0.250 0.310 ± 0.010 +0.060 (+24.0%), better" in seen
    assert "arc_easy: acc_norm (higher is better) 0.260 0.270 ± 0.010 +0.010, within two standard errors" in seen
    assert "a: a (higher is better) 0.500 0.750 +0.250 (+50.0%), better" in seen
    unknown = {"task": {"acc": {"base": None, "tuned": 1.0, "stderr": None}}}
    assert "Benchmarks" not in text_of(run_report(make_plan(), tmp_path, {"benchmarks": unknown}))


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (2.0, 1.0, "The tuned model is better than its base"),
        (1.0, 2.0, "The tuned model is worse than its base"),
        (1.0, 1.0, "The tuned model is no better than its base"),
        (float("inf"), 2.0, "The tuned model is better than its base"),
    ],
)
def test_the_verdict_follows_the_loss(tmp_path: Path, before: float, after: float, verdict: str):
    page = run_report(make_plan(), tmp_path, {"loss_before": before, "loss_after": after, "epoch": "epoch_0"})
    assert verdict in text_of(page)
    assert ('class="verdict bad"' in page) == ("worse" in verdict)


def test_a_type_is_judged_by_its_own_figure(tmp_path: Path):
    evaluation = {
        "loss_before": 0.5,
        "loss_after": 0.7,
        "figures_before": {"accuracy": 0.5, "f1": 0.4},
        "figures_after": {"accuracy": 0.9, "f1": 0.8},
        "epoch": "epoch_1",
        "epochs": {"epoch_0": {"loss": 0.6, "accuracy": 0.7, "f1": 0.6}, "epoch_1": {"loss": 0.7, "f1": 0.8}},
        "figure": "f1",
    }
    seen = text_of(run_report(make_plan(held_out={"rows": 40, "given_rows": 9}), tmp_path, evaluation))
    assert "The tuned model is better than its base F1 on 9 held-out rows went from 0.400 to 0.800" in seen
    assert "Loss 0.500 → 0.700 +0.200 (+40.0%), worse" in seen
    assert "Accuracy (higher is better) 0.500 0.900 +0.400 (+80.0%), better" in seen
    assert "F1 of the held-out rows" in seen and "Accuracy of the held-out rows" in seen


def test_an_address_loses_its_secrets(tmp_path: Path):
    address = "https://somebody:hunter2@example.com/rows.jsonl"
    (tmp_path / "settings.json").write_text(json.dumps({"overrides": {"uri": address}}))
    page = run_report(make_plan(base=address, dataset=address), tmp_path, make_evaluation())
    assert "example.com/rows.jsonl" in page and "hunter2" not in page


def test_a_long_training_with_long_texts_gives_a_page_of_a_few_hundred_kilobytes(tmp_path: Path):
    leave_run(tmp_path, "x" * 20_000)
    (tmp_path / METRICS_NAME).write_text("".join(json.dumps(row) + "\n" for row in make_steps(20_000)))
    tasks = {f"task_{number}": {"acc": {"base": 0.1, "tuned": 0.2, "stderr": 0.01}} for number in range(1000)}
    evaluation = {**make_evaluation("y" * 1_000_000), "benchmarks": tasks}
    page = run_report(make_plan(), tmp_path, evaluation)
    assert "700 more are in evaluation.json." in page
    assert len(page) < 600_000
