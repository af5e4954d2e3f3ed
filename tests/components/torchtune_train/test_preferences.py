"""Real trainings on pairs of answers: they learn, tell what transformers tells, and are alike however they are run."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import preferences
import pytest
import torch
from saved_often import KILL_NAME
from torchtune.rlhf.loss import DPOLoss, RSOLoss
from transformers import AutoModelForCausalLM

from kfp_finetune.components.evaluate_model.evaluate import evaluate
from kfp_finetune.components.evaluate_model.pairs import compare_pairs
from kfp_finetune.components.torchtune_train.sampler import order_rows
from kfp_finetune.components.torchtune_train.train import WORKER, train
from kfp_finetune.launch.process import LaunchError
from kfp_finetune.metrics import read_metrics
from kfp_finetune.training import train as training
from kfp_finetune.training.gate import OF_EVERY_PAIR, failed_bounds, gate_figures
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.steps import newest_step

RATES = {"lora": 5e-3, "full": 1e-3}
SEED = 42
OF_TRAINING = ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins")


def steps(given: preferences.Given, plan: Plan) -> list[dict[str, float]]:
    return read_metrics(given.root / plan.training / "metrics.jsonl")


def curves(given: preferences.Given, plan: Plan) -> list[list[float]]:
    return [[row[name] for name in OF_TRAINING] for row in steps(given, plan)]


@pytest.mark.parametrize("method", RATES)
def test_a_model_learns_what_is_preferred(method: str, tmp_path: Path):
    given = preferences.start(tmp_path, preferences.rows(120))
    plan = given.plan(method=method, learning_rate=RATES[method]).plan
    train(plan, str(given.root))
    evaluation = evaluate(plan, str(given.root))
    assert evaluation.loss_before == pytest.approx(math.log(2)) and evaluation.figures_before["reward_accuracy"] == 0.5
    assert evaluation.loss_after < 0.5
    assert evaluation.figures_after["reward_accuracy"] > 0.9 and evaluation.figures_after["reward_margin"] > 0.3
    assert (evaluation.rows, evaluation.tokens) == (24, plan.held_out["label_tokens"])
    folder = given.root / plan.training
    pages = [(folder / name).read_text() for name in ("training.html", "report.html")]
    assert all("Reward accuracy" in page and "Reward margin" in page for page in pages)
    assert "preferences: dpo, beta 0.1" in pages[1] and "Perplexity" not in pages[1]
    told = json.loads((folder / "evaluation.json").read_text())
    assert set(gate_figures(told)) == set(OF_EVERY_PAIR)
    assert not failed_bounds({"min_reward_accuracy": 0.9, "max_loss": 0.5}, told)
    assert [problem.what for problem in failed_bounds({"min_reward_margin": 50}, told)] == ["gate.min_reward_margin"]


def log_probabilities(model: Path, rows: datasets.Dataset, tokens: str, labels: str) -> np.ndarray:
    """Of each row's answer, one row at a time."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    found = []
    for row in rows:
        wanted = torch.tensor([row[labels]])
        with torch.inference_mode():
            mean = loaded(input_ids=torch.tensor([row[tokens]]), labels=wanted).loss
        found.append(-float(mean) * int((wanted[:, 1:] != -100).sum()))
    return np.array(found)


@pytest.mark.parametrize("method", RATES)
def test_what_is_logged_is_what_transformers_computes_and_a_training_goes_on_as_if_nothing_had_happened(
    method: str, tmp_path: Path
):
    given = preferences.start(tmp_path, preferences.rows(40))
    few = {"max_steps_per_epoch": 3, "warmup_ratio": 0}
    settings = {"method": method, "learning_rate": RATES[method], "epochs": 2, "advanced": few, "beta": 0.3}
    plan = given.plan(**settings).plan
    train(plan, str(given.root))
    check_first_step_of_second_epoch(given, plan)

    folder, whole = given.root / plan.training, curves(given, plan)
    shutil.rmtree(folder / "epoch_1")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:3]))
    assert given.plan(**settings).state == "resume"
    train(plan, str(given.root))
    assert np.array(curves(given, plan)) == pytest.approx(np.array(whole), abs=1e-6)


def check_first_step_of_second_epoch(given: preferences.Given, plan: Plan) -> None:
    """It is made with the weights of the first epoch, which lie on the volume."""
    folder = given.root / plan.training
    rows = datasets.load_from_disk(str(folder / "tokens/train"))
    lengths = [max(len(row["tokens"]), len(row["rejected_tokens"])) for row in rows]
    first = order_rows(lengths, 4, np.random.default_rng([SEED, 1]))[0]
    batch, step = rows.select(first), steps(given, plan)[3]
    models = (given.root / plan.model, folder / "epoch_0")
    chosen, rejected = (
        [log_probabilities(model, batch, *columns) for model in models]
        for columns in (("tokens", "labels"), ("rejected_tokens", "rejected_labels"))
    )
    rewards = [0.3 * (tuned - base) for base, tuned in (chosen, rejected)]
    margins = rewards[0] - rewards[1]
    assert abs(margins).min() > 1e-3, "the model has changed"
    assert step["log_probs/chosen"] == pytest.approx(chosen[1].mean(), abs=1e-4)
    assert step["log_probs/rejected"] == pytest.approx(rejected[1].mean(), abs=1e-4)
    assert step["rewards/chosen"] == pytest.approx(rewards[0].mean(), abs=1e-4)
    assert step["rewards/margins"] == pytest.approx(margins.mean(), abs=1e-4)
    assert step["rewards/accuracies"] == (margins > 0).mean()
    assert step["loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean(), abs=1e-4)


@pytest.mark.parametrize("method", RATES)
def test_two_processes_train_as_one_and_with_activations_computed_again(method: str, tmp_path: Path):
    given = preferences.start(tmp_path, preferences.rows(60))
    settings = {"method": method, "learning_rate": RATES[method]}
    again = {"enable_activation_checkpointing": True}
    alone = given.plan(**settings).plan
    shared = given.plan(
        **settings, num_procs_per_node=2, batch_size=1, gradient_accumulation_steps=2, advanced=again
    ).plan
    assert alone.key != shared.key
    for plan in alone, shared:
        train(plan, str(given.root))
    assert np.array(curves(given, shared)) == pytest.approx(np.array(curves(given, alone)), abs=2e-4)


@pytest.mark.parametrize(("method", "procs"), [("lora", 2), ("full", 1)])
def test_after_a_kill_inside_an_epoch_the_figures_are_those_of_an_undisturbed_run(
    method: str, procs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    calm, struck = (preferences.start(tmp_path / name, preferences.rows(60)) for name in ("calm", "struck"))
    settings = {"method": method, "learning_rate": RATES[method], "num_procs_per_node": procs, "batch_size": 4 // procs}
    plan = calm.plan(**settings, advanced={"checkpoint_minutes": 0}).plan
    often = struck.plan(**settings, advanced={"checkpoint_minutes": 1e-9}).plan
    assert often.key == plan.key
    train(plan, str(calm.root))
    folder = struck.root / often.training
    (folder / KILL_NAME).write_text("3")
    saving = replace(WORKER, module="saved_often")
    with pytest.raises(LaunchError):
        training.train(often, saving, str(struck.root))
    step = newest_step(folder)
    assert step is not None and 3 <= step.number < plan.total_steps
    training.train(often, saving, str(struck.root))
    assert curves(struck, often) == curves(calm, plan)


def test_gradients_of_an_adapter_are_clipped(tmp_path: Path):
    given = preferences.start(tmp_path, preferences.rows(40))
    margins = {}
    for norm in 1e-4, 0:
        advanced = {"clip_grad_norm": norm, "max_steps_per_epoch": 3, "warmup_ratio": 0}
        plan = given.plan(
            learning_rate=1.0, advanced=advanced, overrides={"optimizer._component_": "torch.optim.SGD"}
        ).plan
        train(plan, str(given.root))
        margins[norm] = abs(steps(given, plan)[-1]["rewards/margins"])
    assert margins[1e-4] < 1e-3 < 1e-1 < margins[0]


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        (DPOLoss(0.3), {"loss": "dpo", "beta": 0.3, "label_smoothing": 0.0}),
        (DPOLoss(0.3, 0.2), {"loss": "dpo", "beta": 0.3, "label_smoothing": 0.2}),
        (RSOLoss(0.3), {"loss": "rso", "beta": 0.3, "label_smoothing": 0.0}),
    ],
    ids=["dpo", "smoothed", "rso"],
)
def test_figures_of_pairs_are_torchtune_s(loss: torch.nn.Module, settings: dict[str, Any]):
    model, base = torch.randn(2, 7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20
    losses, chosen, rejected = loss(model[:, 0], model[:, 1], base[:, 0], base[:, 1])
    found = compare_pairs(model.tolist(), base.tolist(), settings)
    assert found.loss == pytest.approx(float(losses.mean()))
    assert found.figures["reward_margin"] == pytest.approx(float((chosen - rejected).mean()))
    assert found.figures["chosen_reward"] == pytest.approx(float(chosen.mean()))
    assert found.figures["reward_accuracy"] == pytest.approx(float((chosen > rejected).double().mean()))
    assert compare_pairs(base.tolist(), base.tolist(), settings).figures["reward_accuracy"] == 0.5
