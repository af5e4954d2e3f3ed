"""Texts and pairs of texts become tokens and labels, and a model learns to tell them apart."""

import random
from pathlib import Path

import datasets
import numpy as np
import pytest
from small_rows import opinions

from kfp_finetune.components.transformers_train.tasks.scores import class_figures
from kfp_finetune.errors import UserError

NAME = "AutoModelForSequenceClassification"


@pytest.fixture(scope="module")
def bert(tmp_path_factory, make_bert) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"), (row["text"] for row in opinions(200, 0)), size=300)


def test_a_model_learns_which_sentences_praise_though_not_turns_them_around(bert, case_of, train_case, tmp_path):
    case = case_of(NAME, bert, opinions(600, 1), opinions(120, 2))
    before, after = train_case(case, tmp_path, num_train_epochs=6)
    assert before["accuracy"] < 0.75
    assert after["accuracy"] > 0.95
    assert after[case.task.best] > 0.95


def test_tokens_are_the_tokenizer_s_own_of_one_text_or_of_two(bert, case_of):
    rows = [{"premise": "the soup was warm", "hypothesis": "the room was dull", "label": n % 3} for n in range(6)]
    shape, tokenizer, train, _ = case_of(NAME, bert, rows, rows).prepare()
    assert shape.columns == {"text": "premise", "text_pair": "hypothesis", "label": "label"}
    wanted = tokenizer("the soup was warm", "the room was dull")
    assert {key: train[0][key] for key in wanted} == dict(wanted)
    assert 1 in train[0]["token_type_ids"]
    assert train["labels"] == [0, 1, 2, 0, 1, 2]


def test_a_text_named_alone_is_read_without_its_pair(bert, case_of):
    rows = [{"premise": "the soup was warm", "hypothesis": "the room was dull", "label": n % 2} for n in range(4)]
    shape, tokenizer, train, _ = case_of(NAME, bert, rows, rows, column_map={"text": "premise"}).prepare()
    assert shape.columns == {"text": "premise", "label": "label"}
    assert train[0]["input_ids"] == tokenizer("the soup was warm")["input_ids"]


def test_what_is_cut_off_is_counted(bert, case_of):
    rows = [{"text": "soup " * (5 * n + 1), "label": n % 2} for n in range(4)]
    _, tokenizer, train, _ = case_of(NAME, bert, rows, rows, max_seq_len=10).prepare()
    lengths = [len(tokenizer(row["text"])["input_ids"]) for row in rows]
    assert train["cut_tokens"] == [max(0, length - 10) for length in lengths]
    assert [len(ids) for ids in train["input_ids"]] == [min(10, length) for length in lengths]
    assert all(ids[-1] == tokenizer.sep_token_id for ids in train["input_ids"])


def test_held_out_labels_in_another_order_keep_their_meaning(bert, case_of):
    def rows(names: list[str]) -> datasets.Dataset:
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
        return datasets.Dataset.from_dict({"text": ["warm", "cold", "dull"], "label": [0, 1, 2]}, features=features)

    case = case_of(NAME, bert, rows(["a", "b", "c"]), rows(["c", "a", "b"]))
    shape, _, train, held_out = case.prepare()
    assert shape.labels.names == ("a", "b", "c")
    assert train["labels"] == [0, 1, 2]
    assert held_out["labels"] == [2, 0, 1]


def test_a_row_without_text_and_one_with_an_unknown_label_are_refused_by_number(bert, case_of):
    good = [{"text": "warm", "label": "yes"}, {"text": "cold", "label": "no"}]
    with pytest.raises(UserError, match=r"row 2 \(from 0\) of train whose text is None"):
        case_of(NAME, bert, [*good, {"text": None, "label": "no"}], good).prepare()
    with pytest.raises(UserError, match=r"row 1 \(from 0\) of validation whose label is 'maybe'.*'no', 'yes'"):
        case_of(NAME, bert, good, [good[0], {"text": "dull", "label": "maybe"}]).prepare()


def test_a_model_that_writes_text_is_trained_with_its_end_token_for_padding_and_never_on_no_token(
    make_gpt, case_of, tmp_path
):
    gpt = make_gpt(tmp_path, [row["text"] for row in opinions(50, 0)])
    rows = [{"text": "the soup was warm", "label": "yes"}, {"text": "cold", "label": "no"}]
    case = case_of(NAME, gpt, rows, rows)
    _, tokenizer, train, _ = case.prepare()
    batch = case.task.collator(tokenizer, case.settings)(train.remove_columns("cut_tokens").to_list())
    assert batch["input_ids"][1, -1] == tokenizer.eos_token_id
    assert batch["attention_mask"].sum(1).tolist() == [len(ids) for ids in train["input_ids"]]
    with pytest.raises(UserError, match=r"row 2 \(from 0\) of train of whose text no token is made"):
        case_of(NAME, gpt, [*rows, {"text": "", "label": "no"}], rows).prepare()


def test_figures_are_those_of_an_independent_count(bert, case_of):
    draw = random.Random(7)
    for _ in range(50):
        true, guessed = ([draw.randrange(4) for _ in range(20)] for _ in range(2))
        f1s = []
        for one in set(true) | set(guessed):
            hits = sum(a == b == one for a, b in zip(true, guessed, strict=True))
            precision = hits / guessed.count(one) if one in guessed else 0
            recall = hits / true.count(one) if one in true else 0
            f1s.append(2 * precision * recall / (precision + recall) if hits else 0)
        figures = class_figures(np.array(guessed), np.array(true))
        assert figures["f1"] == pytest.approx(sum(f1s) / len(f1s))
        assert figures["accuracy"] == sum(a == b for a, b in zip(true, guessed, strict=True)) / 20
