"""Planning finds every mistake, turns rows into tokens once, and knows what was done."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import yaml
from given import Given, start

from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.errors import UserError
from kfp_finetune.reports.data import Data, data_report
from kfp_finetune.training.forecast import Forecast
from kfp_finetune.training.forecast_page import forecast_block
from kfp_finetune.training.plan import Plan


def with_rows(given: Given, rows: list[dict], tmp_path: Path) -> Given:
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(given, dataset=initialize_dataset(str(path), str(given.root)))


def test_a_plan_holds_all_that_training_needs(tmp_path: Path):
    found = start(tmp_path, rows=40)
    outcome = found.plan(num_procs_per_node=2, epochs=3)
    training = found.root / outcome.plan.training
    config = yaml.safe_load((training / "config.yaml").read_text())
    assert outcome.state == "new"
    assert (outcome.plan.train["rows"], outcome.plan.held_out["rows"]) == (38, 2)
    assert outcome.plan.total_steps == 3 * (19 // 4)
    assert config["metric_logger"]["total_steps"] == outcome.plan.total_steps
    assert config["output_dir"] == str(training)
    assert (training / "config.yaml").read_text().startswith("# Fine-tuning")
    data = Data.from_json((training / "data.json").read_text())
    forecast = Forecast.from_dict(outcome.plan.expected)
    assert (training / "data.html").read_text() == data_report(data, [forecast_block(forecast)])
    assert data.facts["Rows to train on"] == data.tokens["rows"] == sum(data.lengths.counts) == 38
    assert len(data.samples) == 2 and "<svg" in data_report(data)
    settings = json.loads((training / "settings.json").read_text())
    assert (settings["epochs"], settings["learning_rate"], settings["lora_alpha"]) == (3, 5e-3, 16)
    assert Plan.from_json(outcome.plan.to_json()) == outcome.plan


def test_held_out_rows_are_never_trained_on_and_stay_the_same(tmp_path: Path):
    found = start(tmp_path, rows=200)
    parts = []
    for rank in (4, 8):
        training = found.root / found.plan(held_out="10%", lora_rank=rank).plan.training
        parts.append({part: datasets.load_from_disk(str(training / "tokens" / part)) for part in ("train", "held_out")})
    assert len(parts[0]["held_out"]) == 20
    assert parts[0]["held_out"]["tokens"] == parts[1]["held_out"]["tokens"]
    assert len(parts[0]["train"]) + len(parts[0]["held_out"]) == 200


def test_slices_of_one_split_that_do_not_overlap_are_apart(tmp_path: Path):
    plan = start(tmp_path).plan(split="train[:80%]", held_out="train[80%:]").plan
    assert (plan.train["rows"], plan.held_out["rows"]) == (32, 8)


def test_without_a_limit_rows_may_be_as_long_as_the_model_can_read(tmp_path: Path):
    found = start(tmp_path)
    plan = found.plan(max_seq_len=0).plan
    config = yaml.safe_load((found.root / plan.training / "config.yaml").read_text())
    assert config["tokenizer"]["max_seq_len"] == config["model"]["max_seq_len"] == 256


def test_rows_are_not_packed_for_a_model_that_cannot_read_them(tmp_path: Path):
    with pytest.raises(UserError, match="packed: given true"):
        start(tmp_path, "gemma2").plan(packed=True)


def test_a_volume_without_room_for_the_checkpoints_is_refused_with_both_sizes(tmp_path: Path):
    found = start(tmp_path)
    many = {"method": "full", "epochs": 1000, "batch_size": 1}
    huge = replace(found.model, facts={**found.model.facts, "parameters": 8_000_000_000})
    with pytest.raises(UserError, match=r"workspace: given [\d,.]+ GB free; allowed: [\d,.]+ GB for .* 1000 epochs"):
        replace(found, model=huge).plan(**many)
    assert found.plan(**many, advanced={"keep_last_n_checkpoints": 1}).state == "new"


def test_planning_again_finds_the_plan(tmp_path: Path):
    found = start(tmp_path)
    first = found.plan()
    written = (found.root / first.plan.training / "plan.json").stat().st_mtime_ns
    assert found.plan().plan == first.plan
    assert (found.root / first.plan.training / "plan.json").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "change",
    [{"epochs": 2}, {"lora_rank": 4}, {"learning_rate": 1e-3}, {"num_procs_per_node": 2}, {"train_on_input": True}],
)
def test_a_setting_that_shapes_the_result_makes_another_training(change: dict, tmp_path: Path):
    found = start(tmp_path)
    assert found.plan(**change).plan.key != found.plan().plan.key


def test_what_does_not_shape_the_result_is_the_same_training(tmp_path: Path):
    found = start(tmp_path)
    assert found.plan(name="one").plan.key == found.plan(name="other").plan.key
    assert found.plan(learning_rate=0.0).plan.key == found.plan(learning_rate=3e-4).plan.key
    one, other = ({"lora_attn_modules": modules} for modules in (["v_proj", "q_proj"], ["q_proj", "v_proj"]))
    assert found.plan(method="full").plan.key == found.plan(method="full", lora_rank=64, advanced=one).plan.key
    assert found.plan(advanced=one).plan.key == found.plan(advanced=other).plan.key


def test_a_planned_training_goes_on_with_the_checkpoints_that_are_asked_for_now(tmp_path: Path):
    found = start(tmp_path)
    first = found.plan().plan
    second = found.plan(advanced={"checkpoint_minutes": 3}).plan
    assert (first.checkpoint_minutes, second.checkpoint_minutes) == (10, 3)
    assert first.key == second.key and not found.plan(advanced={"checkpoint_minutes": 0}).plan.checkpoint_minutes


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path):
    found = start(tmp_path, use_sliding_window=True)
    with pytest.raises(UserError) as caught:
        found.plan(epochs=-1, max_seq_len=512, advanced={"seed": -1, "enable_activation_offloading": True})
    assert {problem.what for problem in caught.value.problems} == {
        "epochs", "seed", "enable_activation_offloading", "model",
    }  # fmt: skip
    with pytest.raises(UserError) as caught:
        found.plan(name="../x", epochs=-1, method="lore", held_out="0%")
    assert {problem.what for problem in caught.value.problems} == {"name", "epochs", "method", "held_out", "model"}
    assert not (found.root / "trainings").exists()


@pytest.mark.parametrize(
    ("settings", "what", "named"),
    [
        ({"column_map": {"input": "question"}}, "column_map.input", "input, output"),
        ({"split": "validation"}, "split", "train"),
        ({"held_out": "test"}, "split", "train"),
        ({"max_seq_len": 512}, "max_seq_len", "at most 256"),
        ({"batch_size": 64}, "batch_size", "38 rows"),
        ({"packed": True, "batch_size": 64}, "batch_size", "sequences in a step"),
        ({"held_out": "train"}, "held_out", "40 rows are also in split 'train'"),
        ({"split": "train[:80%]", "held_out": "train[70%:]"}, "held_out", "do not overlap"),
        ({"split": "train[:2%]"}, "dataset", "at least 2 rows"),
    ],
)
def test_what_does_not_fit_the_data_or_the_model_is_refused(settings: dict, what: str, named: str, tmp_path: Path):
    found = start(tmp_path)
    with pytest.raises(UserError) as caught:
        found.plan(**settings)
    assert [problem.what for problem in caught.value.problems] == [what]
    assert named in str(caught.value)
    assert not list((found.root / "trainings").glob("[!.]*"))


@pytest.mark.parametrize("value", [None, 3])
def test_a_row_without_text_is_refused_with_its_number(value: object, tmp_path: Path):
    rows = [{"input": "a", "output": "b"}, {"input": "a", "output": None}, {"input": "c", "output": "d"}]
    if value == 3:
        rows = [{"input": "a", "output": 1}, {"input": "a", "output": 2}, {"input": "c", "output": 3}]
    found = with_rows(start(tmp_path), rows, tmp_path)
    with pytest.raises(UserError, match=r"row \d .*output is"):
        found.plan(batch_size=1)


def test_rows_that_are_cut_are_counted_and_rows_without_answer_are_left_out(tmp_path: Path):
    short, long_answer = {"input": "a", "output": "b"}, {"input": "a", "output": "red " * 200}
    long_prompt = {"input": "red " * 200, "output": "b"}
    rows = [short] * 10 + [long_answer] * 3 + [long_prompt] * 2
    found = with_rows(start(tmp_path), rows, tmp_path)
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(short) + "\n")
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "other.jsonl").rename(data / "train.jsonl")
    path.rename(data / "test.jsonl")
    found = replace(found, dataset=initialize_dataset(str(data), str(found.root)))
    plan = found.plan(max_seq_len=64, held_out="test").plan
    assert (plan.train["rows"], plan.train["cut_rows"], plan.train["dropped_rows"]) == (13, 5, 2)
    tokens = datasets.load_from_disk(str(found.root / plan.training / "tokens" / "train"))
    assert max(len(row) for row in tokens["tokens"]) == 64
    assert all(any(label != -100 for label in row) for row in tokens["labels"])


def test_overrides_are_laid_over_the_configuration(tmp_path: Path):
    found = start(tmp_path)
    outcome = found.plan(
        overrides={"optimizer.betas": [0.8, 0.9], "lr_scheduler": {"num_cycles": 0.4}},
        advanced={"weight_decay": 0.5, "lora_alpha": 4.0, "max_steps_per_epoch": 3},
    )
    config = yaml.safe_load((found.root / outcome.plan.training / "config.yaml").read_text())
    assert config["optimizer"]["weight_decay"] == 0.5
    assert config["optimizer"]["betas"] == [0.8, 0.9]
    assert config["optimizer"]["_component_"] == "torch.optim.AdamW"
    assert config["lr_scheduler"]["num_cycles"] == 0.4
    assert config["model"]["lora_alpha"] == 4
    assert outcome.plan.lora_scale == 0.5
    assert outcome.plan.total_steps == 3
