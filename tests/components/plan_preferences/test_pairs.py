"""Pairs of answers become tokens: which turns are the prompt, what counts, what is left out and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import preferences
import pytest
import tiny

from kfp_finetune.chat import IGNORED, load_tokenizer
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.plan_preferences.pairs import PairShape, find_shape, read_pair
from kfp_finetune.components.plan_preferences.settings import PairSettings
from kfp_finetune.components.plan_preferences.tokens import PairCounts, tokenize_pairs
from kfp_finetune.errors import UserError
from kfp_finetune.reports.data import Data
from kfp_finetune.training.parts import Part

ASK, YES, NO = (
    {"role": role, "content": text} for role, text in (("user", "red"), ("assistant", "a"), ("assistant", "b"))
)
MORE = {"role": "user", "content": "blue"}
BRIEF = {"role": "system", "content": "be brief"}
HH = "\n\nHuman: red\n\nAssistant: {}"

WHOLE = "<|im_start|>user\nred<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
SYSTEM = "<|im_start|>system\nbe brief<|im_end|>\n"

FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "texts": ({"prompt": "red", "chosen": "a", "rejected": "b"}, WHOLE),
    "texts with a system message": (
        {"system": "be brief", "prompt": "red", "chosen": "a", "rejected": "b"},
        SYSTEM + WHOLE,
    ),
    "a system message that is absent": ({"system": None, "prompt": "red", "chosen": "a", "rejected": "b"}, WHOLE),
    "messages": ({"chosen": [ASK, YES], "rejected": [ASK, NO]}, WHOLE),
    "messages with a system message": ({"chosen": [BRIEF, ASK, YES], "rejected": [BRIEF, ASK, NO]}, SYSTEM + WHOLE),
    "messages beside their prompt": ({"prompt": "other", "chosen": [ASK, YES], "rejected": [ASK, NO]}, WHOLE),
    "answers as messages": ({"prompt": "red", "chosen": [YES], "rejected": [NO]}, WHOLE),
    "a prompt of messages": ({"prompt": [BRIEF, ASK], "chosen": [YES], "rejected": [NO]}, SYSTEM + WHOLE),
    "a prompt of messages, answers as text": ({"prompt": [ASK], "chosen": "a", "rejected": "b"}, WHOLE),
    "transcripts": ({"chosen": HH.format("a"), "rejected": HH.format("b")}, WHOLE),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(directory)
    return directory


def tokens_of(
    rows: list[dict[str, Any]], model: Path, target: Path, max_seq_len: int = 1000, **values: Any
) -> tuple[PairCounts, datasets.Dataset]:
    data, found = PairSettings(**values), datasets.Dataset.from_list(rows)
    part = Part(found, range(len(rows)), "train")
    shape = find_shape(found.column_names, data)
    counts, _ = tokenize_pairs(part, load_tokenizer(model), shape, data, max_seq_len, target)
    return counts, datasets.load_from_disk(str(target))


def texts(row: dict[str, list[int]], model: Path) -> list[str]:
    """What both sides say, and what of each counts."""
    decode = load_tokenizer(model).decode
    labels = [[label for label in row[side] if label != IGNORED] for side in ("labels", "rejected_labels")]
    return [decode(ids) for ids in (row["tokens"], row["rejected_tokens"], *labels)]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_pair_gives_a_prompt_and_two_answers_that_count(form: str, model: Path, tmp_path: Path):
    row, whole = FORMS[form]
    counts, rows = tokens_of([row], model, tmp_path)
    assert texts(rows[0], model) == [whole.format("a"), whole.format("b"), "a<|im_end|>\n", "b<|im_end|>\n"]
    assert counts.rows == 1 and counts.dropped_rows == 0
    assert counts.tokens == len(rows[0]["tokens"]) + len(rows[0]["rejected_tokens"])


def test_of_a_conversation_only_what_differs_counts(model: Path, tmp_path: Path):
    _, rows = tokens_of([{"chosen": [ASK, YES, MORE, YES], "rejected": [ASK, YES, MORE, NO]}], model, tmp_path)
    *_, chosen, rejected = texts(rows[0], model)
    assert (chosen, rejected) == ("a<|im_end|>\n", "b<|im_end|>\n")


def test_other_columns_and_a_new_system_message(model: Path, tmp_path: Path):
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    row = {"question": "red", "good": "a", "bad": "b", "chosen": None, "score": 1.5}
    _, rows = tokens_of([row], model, tmp_path, column_map=columns, new_system_prompt="be brief")
    assert texts(rows[0], model)[0] == (SYSTEM + WHOLE).format("a")


PAIR = {"prompt": "red", "chosen": "a", "rejected": "b"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({**PAIR, "chosen": None}, "whose chosen is None"),
    "a blank prompt": ({**PAIR, "prompt": " "}, "whose prompt is ' '"),
    "a text without a prompt": ({"chosen": "a", "rejected": "b"}, "with no column for the prompt"),
    "other prompts": ({"chosen": [ASK, YES], "rejected": [MORE, NO]}, "do not answer the same prompt"),
    "other prompts behind a system message": (
        {"chosen": [BRIEF, ASK, YES], "rejected": [BRIEF, MORE, NO]},
        "do not answer the same prompt",
    ),
    "other prompts later": (
        {"chosen": [ASK, YES, MORE, YES], "rejected": [ASK, YES, ASK, NO]},
        "differ in turn 2 (from 0), of the role user",
    ),
    "a prompt at the end": (
        {"chosen": [ASK, YES, MORE], "rejected": [ASK, NO]},
        "whose chosen ends with a turn of the role user",
    ),
    "one that goes on": ({"chosen": [ASK, YES], "rejected": [ASK, YES, MORE, NO]}, "one is the beginning of the other"),
    "answers alone": ({"chosen": [YES], "rejected": [NO]}, "whose turns are assistant"),
    "a role that there is not": (
        {"chosen": [{**ASK, "role": "boss"}, YES], "rejected": [ASK, NO]},
        "has the role 'boss'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_row_that_is_no_pair_is_refused_with_its_number(case: str):
    row, named = WRONG[case]
    shape = PairShape({name: name for name in row})
    with pytest.raises(UserError) as refused:
        read_pair(row, "row 7 (from 0) of train", shape, PairSettings())
    assert "row 7 (from 0) of train" in str(refused.value) and named in str(refused.value)


def test_pairs_that_teach_nothing_are_left_out_and_counted(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    longer = {"prompt": "red " * 30, "chosen": "a", "rejected": "b"}
    same_for_long = {"prompt": "red", "chosen": "a " * 40 + "c", "rejected": "a " * 40 + "b"}
    rows = [
        PAIR,
        {**PAIR, "rejected": "a"},
        {**PAIR, "chosen": " "},
        longer,
        same_for_long,
        {**PAIR, "rejected": "c " * 80},
    ]
    counts, kept = tokens_of(rows, model, tmp_path, max_seq_len=60)
    assert counts.rows == len(kept) == 2
    assert (counts.dropped_rows, counts.equal_answers, counts.empty_outputs, counts.cut_rows) == (4, 1, 1, 3)
    assert max(map(len, kept["rejected_tokens"])) == 60 and counts.lost_tokens > 0
    assert "1 rows of train have the same answer twice; left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "length", "named"),
    [([{**PAIR, "rejected": "a"}], 100, "none has two answers that differ"), ([PAIR], 8, "max_seq_len: given 8")],
)
def test_rows_of_which_nothing_is_left_are_refused(rows: list, length: int, named: str, model: Path, tmp_path: Path):
    with pytest.raises(UserError, match=named):
        tokens_of(rows, model, tmp_path, max_seq_len=length)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> preferences.Given:
    return preferences.start(tmp_path_factory.mktemp("world"), preferences.rows(60))


def test_a_plan_of_preferences_holds_all_that_training_needs(world: preferences.Given):
    outcome = world.plan(beta=0.2, batch_size=0)
    plan, training = outcome.plan, world.root / outcome.plan.training
    assert plan.preference == {"loss": "dpo", "beta": 0.2, "label_smoothing": 0.0}
    assert (plan.train["rows"], plan.held_out["rows"]) == (48, 12)
    data = Data.from_json((training / "data.json").read_text())
    assert data.facts["Pairs to train on"] == 48 and data.samples[0].keys() == {"prompt", "chosen", "rejected"}
    assert world.plan(beta=0.2, batch_size=0).plan.key == plan.key != world.plan(beta=0.1, batch_size=0).plan.key
    assert "ref_checkpointer" not in (training / "config.yaml").read_text()
    full = world.plan(method="full")
    assert "ref_checkpointer" in (world.root / full.plan.training / "config.yaml").read_text()


def test_the_learning_rate_is_the_method_s_unless_it_is_given(world: preferences.Given):
    for method, rate in ("lora", 1e-5), ("full", 1e-6):
        plan = world.plan(method=method, learning_rate=0.0).plan
        assert f'"learning_rate": {rate}' in (world.root / plan.training / "settings.json").read_text()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"method": "qlora"}, "method: given 'qlora'; allowed: 'lora' or 'full'"),
    ({"advanced": {"packed": True}}, "advanced: given 'packed'"),
    ({"advanced": {"tensor_parallel_dim": 2}}, "advanced: given 'tensor_parallel_dim'"),
    ({"advanced": {"beta": 1.0}}, "advanced.beta: given 1"),
    ({"beta": 0.0}, "beta: given 0"),
    ({"label_smoothing": 0.5}, "label_smoothing: given 0.5"),
    ({"loss": "simpo"}, "loss: given 'simpo'; allowed: 'dpo' or 'rso'"),
    ({"loss": "rso", "label_smoothing": 0.1}, "label_smoothing: given 0.1, with loss rso"),
    ({"overrides": {"loss._component_": "torch.nn.CrossEntropyLoss"}}, "overrides: given 'loss'"),
    ({"overrides": {"optimizer_in_bwd": True}, "method": "full"}, "overrides: given 'optimizer_in_bwd'"),
    ({"column_map": {"input": "x"}}, "column_map: given {'input': 'x'}"),
    ({"column_map": {"chosen": "x"}}, "column_map.chosen: given 'x'; allowed: one of prompt, chosen, rejected"),
]


@pytest.mark.parametrize(("settings", "named"), REFUSED, ids=str)
def test_what_preference_tuning_cannot_do_is_refused_by_name(
    settings: dict[str, Any], named: str, world: preferences.Given
):
    with pytest.raises(UserError) as refused:
        world.plan(**settings)
    assert named in str(refused.value)


def test_all_that_is_wrong_is_said_at_once(world: preferences.Given):
    with pytest.raises(UserError) as refused:
        world.plan(method="dora", beta=-1.0, epochs=0, advanced={"compile": True})
    assert {problem.what for problem in refused.value.problems} == {"method", "beta", "epochs", "advanced"}


def test_a_row_s_number_is_that_in_the_file(world: preferences.Given, tmp_path: Path):
    rows = preferences.rows(40)
    rows[33] = {**rows[33], "prompt": ""}
    path = preferences.write(tmp_path / "rows.jsonl", rows)
    broken = replace(world, dataset=initialize_dataset(str(path), str(world.root)))
    with pytest.raises(UserError, match=r"row 33 \(from 0\) of train whose prompt is ''"):
        broken.plan()
