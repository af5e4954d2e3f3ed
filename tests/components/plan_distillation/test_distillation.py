"""A model learns from a larger one what no row says, and what is wrong with a teacher is said before it is loaded."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import tiny
import torch
from given import SETTINGS, Given, start
from many import train_each
from transformers import AutoModelForCausalLM

from kfp_finetune.components.evaluate_model.evaluate import evaluate
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.plan_distillation.planning import make_plan
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.errors import UserError
from kfp_finetune.manifests import Manifest
from kfp_finetune.metrics import read_metrics
from kfp_finetune.training.forecast import Forecast
from kfp_finetune.training.plan import Plan

LARGER = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3}
"""A teacher's sizes; its vocabulary is filled up, as those of larger models are."""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Given, Manifest]:
    """A model, rows, and a teacher that has learned them."""
    directory = tmp_path_factory.mktemp("given")
    found = start(directory, rows=120)
    larger = tiny.write_model(directory / "larger", vocab_size=384, **LARGER)
    pupil = replace(found, model=initialize_model(str(larger), str(found.root)))
    learned = pupil.plan("teacher", method="full", held_out="25%", epochs=2).plan
    train(learned, str(found.root))
    return found, initialize_model(str(found.root / learned.training / "epoch_1"), str(found.root))


def plan(found: Given, teacher: Manifest, **settings: Any) -> Plan:
    values = SETTINGS | {"held_out": "25%"} | settings
    return make_plan(found.dataset, found.model, teacher, "series", values, str(found.root)).plan


def divergence(root: Path, trained: Path, teacher: Manifest, plan: Plan) -> float:
    """How far a model is from its teacher on the held-out answers: Kullback and Leibler's, in nats a token."""
    ours, theirs = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for folder in (trained, root / teacher.path)
    )
    total, count = 0.0, 0
    for row in datasets.load_from_disk(str(root / plan.training / "tokens" / "held_out")):
        tokens, labels = torch.tensor([row["tokens"]]), torch.tensor(row["labels"])
        with torch.inference_mode():
            known = ours.config.vocab_size
            mine, taught = (model(tokens).logits[0, :-1, :known].log_softmax(-1) for model in (ours, theirs))
        counts = labels[1:] != -100
        total += float((taught.exp() * (taught - mine)).sum(-1)[counts].sum())
        count += int(counts.sum())
    return total / count


def losses(found: Given, plan: Plan) -> list[float]:
    return [row["loss"] for row in read_metrics(found.root / plan.training / "metrics.jsonl")]


def test_a_model_comes_near_its_teacher_though_no_answer_counts(given: tuple[Given, Manifest]):
    found, teacher = given
    taught = plan(found, teacher, method="full", kd_ratio=1.0, epochs=2)
    train(taught, str(found.root))
    folders = found.root / found.model.path, found.root / taught.training / "epoch_1"
    before, after = (divergence(found.root, folder, teacher, taught) for folder in folders)
    assert before > 1 and after < 0.2 * before
    evaluation = evaluate(taught, str(found.root))
    assert evaluation.loss_after < 0.8 * evaluation.loss_before


def test_weights_and_adapters_learn_on_two_processes_with_packed_rows_and_smaller_batches(
    given: tuple[Given, Manifest],
):
    found, teacher = given
    ways: list[dict[str, Any]] = [
        {"method": "full", "packed": True, "batch_size": 1},
        {"method": "lora", "gradient_accumulation_steps": 2, "batch_size": 2},
        {"method": "dora", "batch_size": 2},
    ]
    plans = [plan(found, teacher, num_procs_per_node=2, **way) for way in ways]
    assert not train_each([found.root / one.training for one in plans], procs=2)
    for one in plans:
        learned = losses(found, one)
        assert len(learned) == one.total_steps and learned[-1] < learned[0], one.method


def test_losses_with_a_teacher_are_the_same_if_compiled_and_on_two_processes(given: tuple[Given, Manifest]):
    found, teacher = given
    few = {"max_steps_per_epoch": 4}
    eager = plan(found, teacher, method="lora", batch_size=4, advanced=few)
    compiled = plan(found, teacher, method="lora", batch_size=4, advanced=few | {"compile": True})
    shared = plan(found, teacher, method="lora", batch_size=2, num_procs_per_node=2, advanced=few)
    assert not train_each([found.root / one.training for one in (eager, compiled)], procs=1)
    assert not train_each([found.root / shared.training], procs=2)
    expected = losses(found, eager)
    assert len(set(expected)) == 4
    assert losses(found, compiled) == pytest.approx(expected, abs=1e-3)
    assert losses(found, shared) == pytest.approx(expected, abs=1e-3)


def test_four_bits_learn_from_a_teacher_on_one_process_and_on_two(tmp_path: Path):
    found = start(tmp_path, hidden_size=256, intermediate_size=256, num_attention_heads=2, num_key_value_heads=1)
    teacher = initialize_model(str(tiny.write_model(tmp_path / "teacher", **LARGER)), str(found.root))
    alone = plan(found, teacher, method="qlora")
    train(alone, str(found.root))
    shared = [plan(found, teacher, method=method, num_procs_per_node=2) for method in ("qlora", "qdora")]
    assert not train_each([found.root / one.training for one in shared], procs=2)
    for one in (alone, *shared):
        learned = losses(found, one)
        assert learned[-1] < learned[0], one.method


def test_the_teacher_and_its_weight_are_part_of_the_key_and_told_to_the_reader(given: tuple[Given, Manifest]):
    found, teacher = given
    half, whole = plan(found, teacher), plan(found, teacher, kd_ratio=1)
    other = plan(found, replace(teacher, key="another"))
    alone = found.plan(held_out="25%").plan
    assert len({one.key for one in (half, whole, other, alone)}) == 4
    assert half.learns == f"from the teacher {teacher.source}, kd_ratio 0.5" and not alone.learns
    more = [Forecast.from_dict(one.expected).ways[0] for one in (half, alone)]
    assert more[0].memory_gib >= more[1].memory_gib and more[0].flops_an_epoch > more[1].flops_an_epoch
    assert teacher.key in (found.root / half.training / "config.yaml").read_text(), "pruning keeps the teacher by it"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no weight": ({"kd_ratio": 0}, "kd_ratio: given 0"),
    "more than all": ({"kd_ratio": 1.5}, "kd_ratio: given 1.5"),
    "a loss of the user's own": ({"overrides": {"loss.num_output_chunks": 2}}, "overrides: given 'loss'"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_wrong_with_a_distillation_is_one_message(bad: str, given: tuple[Given, Manifest]):
    changes, message = BAD[bad]
    with pytest.raises(UserError) as refused:
        plan(*given, **changes, epochs=0)
    assert message in str(refused.value) and "epochs: given 0" in str(refused.value)


def test_a_teacher_that_reads_less_or_whose_matrices_are_shared_is_refused(
    given: tuple[Given, Manifest], tmp_path: Path
):
    found, _ = given
    short = initialize_model(str(tiny.write_model(tmp_path / "short", max_position_embeddings=200)), str(found.root))
    with pytest.raises(
        UserError, match="max_seq_len: given 250; allowed: at most 200, the longest sequence of the tea"
    ):
        plan(found, short, max_seq_len=250)
    llama = start(tmp_path, "llama", tie_word_embeddings=False)
    with pytest.raises(UserError, match="tensor_parallel_dim: given 2; allowed: 1 with a teacher"):
        plan(llama, llama.model, method="full", num_procs_per_node=2, advanced={"tensor_parallel_dim": 2})


def test_a_teacher_of_another_kind_or_with_other_tokens_is_refused(given: tuple[Given, Manifest], tmp_path: Path):
    found, _ = given
    other = tiny.write_model(tmp_path / "other")
    tokenizer = other / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("<|im_start|>", "<|turn|>"))
    for name in ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        (other / name).unlink(missing_ok=True)
    with pytest.raises(
        UserError, match=r"teacher: given .*tokens are missing or have other numbers, such as '<\|im_start\|>'"
    ):
        plan(found, initialize_model(str(other), str(found.root)))
    unknown = shutil.copytree(found.root / found.model.path, tmp_path / "unknown")
    config = unknown / "config.json"
    config.write_text(config.read_text().replace('"model_type": "qwen2"', '"model_type": "gpt2"'))
    with pytest.raises(UserError, match="teacher: given the architecture 'gpt2'"):
        plan(found, replace(found.model, path=str(unknown), key="unknown"))
