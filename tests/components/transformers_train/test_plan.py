"""Planning says all that is wrong in one message, before a process starts, and writes what a training reads."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from small_models import save_base, write_bert, write_vit
from small_rows import labelled, opinions, sentences, shapes
from small_tasks import CAUSAL, MASKED, PICTURES, QUESTIONS, TEXTS, WORDS, Given, given, write_jsonl, write_parquet

from kfp_finetune.components.transformers_train.recipe import read_recipe
from kfp_finetune.components.transformers_train.settings import check_values
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.reports.data import Data, data_report
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.planning import describe


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made to find hidden tokens, of which it reads 64."""
    folder = tmp_path_factory.mktemp("bert")
    texts = [row["text"] for row in opinions(200, 0)]
    return save_base(write_bert(folder, texts, size=300, max_position_embeddings=64), "BertForMaskedLM")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(write_vit(tmp_path_factory.mktemp("vit")), "ViTModel")


@pytest.fixture
def sayings(bert: Path, tmp_path: Path) -> Given:
    """Opinions for a BERT."""
    return given(tmp_path, bert, write_jsonl(tmp_path / "rows", opinions(83, 1)), TEXTS, max_seq_len=32)


def problems_of(found: Given, **settings: object) -> list[Problem]:
    with pytest.raises(UserError) as caught:
        found.plan(**settings)
    assert not list((found.root / "trainings").glob("[!.]*")), "nothing is written"
    return list(caught.value.problems)


def test_a_plan_holds_all_that_training_needs(sayings):
    outcome = sayings.plan(epochs=3, gradient_accumulation_steps=2)
    plan, training = outcome.plan, sayings.training(outcome.plan)
    assert outcome.state == "new" and "is new: it will be trained" in describe(outcome)
    assert (plan.train["rows"], plan.held_out["rows"]) == (66, 17)
    assert plan.total_steps == 3 * 3, "66 rows are 9 batches, 5 on the first process, 3 steps"
    assert (plan.transformer_type, plan.method, plan.num_procs_per_node) == (TEXTS, "full", 2)
    recipe = read_recipe(training)
    assert (recipe.model, recipe.total_steps, recipe.label_names) == (plan.model, 9, ["blame", "praise"])
    rows = datasets.load_from_disk(str(training / "rows/train"))
    assert len(rows) == 66 and sum(map(len, rows["input_ids"])) == plan.train["tokens"]
    page = (training / "data.html").read_text()
    data = Data.from_json((training / "data.json").read_text())
    assert page == data_report(data) and data.facts["Rows that the model reads"] == sum(data.lengths.counts) == 66
    settings = json.loads((training / "settings.json").read_text())
    assert (settings["transformer_type"], settings["epochs"]) == (TEXTS, 3) and settings["learning_rate"] > 0
    assert all(words in page for words in ("Column for text", "2: blame, praise", "<svg"))
    assert Plan.from_json(outcome.plan.to_json()) == outcome.plan
    assert sayings.plan(epochs=3, gradient_accumulation_steps=2).plan == plan


@pytest.mark.parametrize(
    "change",
    [{"epochs": 2}, {"strategy": "fsdp"}, {"num_procs_per_worker": 1}, {"training_arguments": {"weight_decay": 0.1}}],
)
def test_a_setting_that_shapes_the_result_makes_another_training(change, sayings):
    assert sayings.plan(**change).plan.key != sayings.plan().plan.key


def test_what_does_not_shape_the_result_is_the_same_training(sayings):
    key = sayings.plan(learning_rate=0.0).plan.key
    assert sayings.plan(name="other", learning_rate=5e-5).plan.key == key
    assert sayings.plan(learning_rate=0.0, num_workers=2, num_procs_per_worker=1).plan.key == key
    adapted = {"lora_config": {"r": 2}}
    assert sayings.plan(learning_rate=0.0, **adapted).plan.key == sayings.plan(learning_rate=2e-4, **adapted).plan.key


@pytest.mark.parametrize(
    ("changes", "file", "said"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "config.json", "with quantization_config"),
        ({"dtype": "auto"}, "config.json", "with dtype 'auto'"),
        ({"peft_type": "LORA"}, "adapter_config.json", "both a model and an adapter"),
    ],
)
def test_files_that_would_be_taken_for_what_they_are_not_are_refused(changes, file, said, sayings):
    path = sayings.root / sayings.model.path / file
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(kept | changes))
    (problem,) = problems_of(sayings)
    assert problem.what == "model" and said in problem.given


def test_a_label_that_is_none_is_told_by_its_row_in_the_split(bert, tmp_path):
    rows = opinions(40, 1)
    rows[7]["label"] = None
    found = given(tmp_path, bert, write_jsonl(tmp_path / "rows", rows), TEXTS, max_seq_len=32)
    (problem,) = problems_of(found)
    assert "row 7 (from 0) of train whose label is None" in problem.given


def test_everything_that_is_wrong_is_said_at_once(sayings):
    found = problems_of(
        sayings,
        name="a/b",
        epochs=0,
        max_seq_len=65,
        held_out="70%",
        training_arguments={"output_dir": "/x", "weight_decay": "much"},
        lora_config={"rank": 8},
        advanced={"seed": -1, "sed": 1, "epochs": 3},
    )
    assert {problem.what for problem in found} == {
        "name", "epochs", "max_seq_len", "held_out", "training_arguments.output_dir",
        "training_arguments.weight_decay", "lora_config", "seed", "advanced", "advanced.epochs",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "what", "said"),
    [
        ({"transformer_type": PICTURES}, "transformer_type", f"for a model of the type bert; allowed: {TEXTS}"),
        ({"transformer_type": CAUSAL}, "transformer_type", "AutoModelForMaskedLM"),
        ({"transformer_type": "BertModel"}, "transformer_type", "'BertModel'"),
        ({"max_seq_len": 65}, "max_seq_len", "at most 64"),
        ({"max_seq_len": 4}, "max_seq_len", "4"),
        ({"num_labels": 1}, "num_labels", "1"),
        ({"advanced": {"mlm_prob": 0.2}}, "advanced", "'mlm_prob'.*Did you mean mlm_probability"),
        ({"advanced": {"batch_size": 2}}, "advanced.batch_size", "Set the parameter batch_size itself"),
        ({"name": "../x"}, "name", r"'\.\./x'"),
        ({"strategy": "deepspeed"}, "strategy", "'deepspeed'"),
        ({"training_arguments": {"fsdp": "full_shard"}}, "training_arguments.fsdp", "parameter strategy"),
        ({"lora_config": {"target_modules": ["q_proj"]}}, "lora_config.target_modules", "q_proj"),
        ({"split": "validation"}, "split", "train"),
        ({"held_out": "train"}, "held_out", "83 rows are also in split 'train'"),
        ({"transformer_type": MASKED, "num_labels": 2}, "num_labels", "which has no labels"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_process_starts(settings, what, said, sayings):
    (problem,) = problems_of(sayings, **settings)
    assert problem.what == what
    with pytest.raises(UserError, match=f"(?s){said}"):
        raise UserError([problem])


def test_too_few_labels_are_refused_with_those_that_there_are(bert, tmp_path):
    rows = [{"text": "warm", "label": name} for name in ("a", "b", "c") * 4]
    found = given(tmp_path, bert, write_jsonl(tmp_path / "rows", rows), TEXTS, max_seq_len=32)
    (problem,) = problems_of(found, num_labels=2)
    assert problem.what == "num_labels" and "3 labels in label: 'a', 'b', 'c'" in problem.given
    assert read_recipe(found.training(found.plan(num_labels=4).plan)).label_names == ["a", "b", "c", "LABEL_3"]


@pytest.mark.parametrize("wanted", [WORDS, QUESTIONS])
def test_columns_that_do_not_fit_are_shown_with_what_is_needed_and_which_type_they_fit(wanted, sayings):
    (problem,) = problems_of(sayings, transformer_type=wanted)
    assert problem.what == "dataset"
    assert "text (text, such as 'the " in problem.given and "label (text, such as " in problem.given
    assert f"for {wanted} " in problem.allowed and f"transformer_type {TEXTS}, which they fit" in problem.mend


def test_a_column_that_is_named_wrongly_is_refused_with_those_that_there_are(sayings):
    (problem,) = problems_of(sayings, column_map={"text": "review"})
    assert (problem.what, problem.given) == ("column_map.text", "'review'")
    assert "text, label" in problem.allowed


def test_a_model_of_pictures_is_for_pictures_alone(vit, tmp_path):
    texts = given(tmp_path / "texts", vit, write_jsonl(tmp_path / "rows", opinions(20, 1)), TEXTS)
    (problem,) = problems_of(texts)
    assert problem.what == "transformer_type" and problem.mend.startswith(f"Take transformer_type {PICTURES}")
    (problem,) = problems_of(texts, transformer_type=PICTURES)
    assert problem.what == "dataset" and "which they fit" in problem.mend


def test_pictures_are_planned_without_tokens(vit, tmp_path):
    found = given(tmp_path, vit, write_parquet(tmp_path / "rows", shapes(21, 1)), PICTURES)
    outcome = found.plan(epochs=2, batch_size=3)
    assert (outcome.plan.train["rows"], outcome.plan.train["tokens"], outcome.plan.total_steps) == (17, 0, 2 * 3)
    assert "a picture" in (found.training(outcome.plan) / "data.html").read_text()


def test_without_a_limit_rows_are_as_long_as_the_model_can_read(bert, tmp_path):
    found = given(tmp_path, bert, write_parquet(tmp_path / "rows", labelled(sentences(9, 1) * 3)), WORDS)
    assert read_recipe(found.training(found.plan(max_seq_len=0).plan)).settings.max_seq_len == 64


def test_a_roberta_reads_fewer_tokens_than_it_has_places(bert, tmp_path):
    found = given(tmp_path, bert, write_jsonl(tmp_path / "rows", opinions(20, 1)), MASKED)
    config = found.root / found.model.path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "roberta", "pad_token_id": 1}))
    (problem,) = problems_of(found, max_seq_len=63)
    assert problem.allowed.startswith("at most 62")


def test_a_volume_without_room_for_the_checkpoints_is_refused(sayings):
    huge = replace(sayings, model=replace(sayings.model, facts={**sayings.model.facts, "parameters": 10**12}))
    (problem,) = problems_of(huge)
    assert problem.what == "workspace" and "GB free" in problem.given


def test_the_client_finds_the_same_without_a_model():
    values = {"transformer_type": "x", "epochs": 0, "advanced": {"sed": 1}, "resources_per_worker": {"gpu": 1}}
    assert {problem.what for problem in check_values(values)} == {"transformer_type", "epochs", "advanced"}
