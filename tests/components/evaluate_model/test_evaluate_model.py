"""The loss is that of the held-out answers' tokens, whatever batch they fall in."""

import json
import math
from pathlib import Path

import datasets
import pytest
import torch
from given import start
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from kfp_finetune.components.evaluate_model.evaluate import evaluate
from kfp_finetune.components.evaluate_model.loss import batch_by_length, held_out_loss
from kfp_finetune.components.export_model.export import export
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.errors import UserError
from kfp_finetune.training.epochs import whole_epochs
from kfp_finetune.training.evaluation import perplexity


def test_base_and_tuned_are_compared_on_the_same_tokens_and_the_tuned_is_better(tmp_path: Path):
    found = start(tmp_path, rows=120)
    plan = found.plan(held_out="10%", epochs=2, learning_rate=2e-2).plan
    with pytest.raises(UserError, match="has finished 0 of"):
        evaluate(plan, str(found.root))
    train(plan, str(found.root))
    evaluation = evaluate(plan, str(found.root))
    assert evaluation.rows == plan.held_out["rows"] == 12
    assert evaluation.tokens == plan.held_out["label_tokens"]
    assert evaluation.loss_after < evaluation.loss_before - 0.5
    assert len(evaluation.samples) == 3
    assert all(set(sample) == {"prompt", "expected", "base", "tuned"} for sample in evaluation.samples)
    training = found.root / plan.training
    assert json.loads((training / "evaluation.json").read_text())["loss_after"] == evaluation.loss_after
    assert evaluation.samples[0]["prompt"] in (training / "report.html").read_text()
    assert evaluate(plan, str(found.root)).loss_after == evaluation.loss_after


def test_the_best_of_the_kept_epochs_is_exported(tmp_path: Path):
    found = start(tmp_path, rows=120)
    settings = {"export_checkpoint": "best", "keep_last_n_checkpoints": 2}
    plan = found.plan(held_out="10%", epochs=3, learning_rate=2e-2, advanced=settings).plan
    train(plan, str(found.root))
    training = found.root / plan.training
    assert list(whole_epochs(training)) == [1, 2]
    assert train(plan, str(found.root)).steps == plan.total_steps, "finished, though an epoch is gone"
    with pytest.raises(UserError, match="no evaluation that tells its best epoch"):
        export(plan, "series", str(found.root))
    (training / "epoch_1").rename(training / "epoch_5")
    (weights,) = (training / "epoch_5").glob("*.safetensors")
    save_file({name: 0.5 * tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    evaluation = evaluate(plan, str(found.root))
    assert set(evaluation.epoch_losses) == {"epoch_2", "epoch_5"}
    assert evaluation.epoch_losses["epoch_2"] < evaluation.epoch_losses["epoch_5"]
    assert (evaluation.epoch, evaluation.loss_after) == ("epoch_2", evaluation.epoch_losses["epoch_2"])
    assert export(plan, "series", str(found.root)).revision.endswith("/epoch_2")


def test_the_loss_is_that_of_row_by_row(tmp_path: Path):
    found = start(tmp_path)
    plan = found.plan(held_out="50%").plan
    rows = datasets.load_from_disk(str(found.root / plan.training / "tokens" / "held_out"))
    model = AutoModelForCausalLM.from_pretrained(found.root / plan.model).eval()
    total, count = 0.0, 0
    for row in rows:
        labels = torch.tensor([row["labels"]])
        tokens = int((labels[:, 1:] != -100).sum())
        with torch.inference_mode():
            total += float(model(input_ids=torch.tensor([row["tokens"]]), labels=labels).loss) * tokens
        count += tokens
    loss, counted = held_out_loss("evaluate", model, rows)
    assert counted == count
    assert loss == pytest.approx(total / count, abs=1e-5)


def test_every_row_is_in_one_batch_and_no_batch_is_too_large():
    lengths = [5, 100, 7, 7, 50, 1, 400]
    batches = batch_by_length(lengths, 120)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 120
    assert batch_by_length([], 10) == []


def test_perplexity_of_a_diverged_model_is_infinite():
    assert perplexity(1.0) == pytest.approx(math.e)
    assert perplexity(1e6) == math.inf
