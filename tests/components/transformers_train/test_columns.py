"""Columns are found by name and by what is in them; a wrong pairing is refused with what would fit."""

import json
import subprocess
import sys
from typing import Any

import datasets
import pytest
import transformers

from kfp_finetune.components.transformers_train.tasks.columns import check_columns, find_columns, types_that_fit
from kfp_finetune.components.transformers_train.tasks.models import check_model, known_labels, types_of
from kfp_finetune.components.transformers_train.tasks.needs import NEEDS
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.table import TASKS
from kfp_finetune.errors import UserError
from kfp_finetune.training.parts import Part

SEQUENCE, TOKENS = "AutoModelForSequenceClassification", "AutoModelForTokenClassification"
ANSWERS, IMAGES = "AutoModelForQuestionAnswering", "AutoModelForImageClassification"
CAUSAL, MASKED = "AutoModelForCausalLM", "AutoModelForMaskedLM"
SQUAD = {"text": ["Oslo"], "answer_start": [3]}
KNOWN: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "imdb": (SEQUENCE, {"text": "x", "label": 1}, {"text": "text", "label": "label"}),
    "sst2": (SEQUENCE, {"idx": 1, "sentence": "x", "label": 1}, {"text": "sentence", "label": "label"}),
    "mrpc": (
        SEQUENCE,
        {"sentence1": "x", "sentence2": "y", "label": 1, "idx": 0},
        {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
    ),
    "qnli": (
        SEQUENCE,
        {"question": "x", "sentence": "y", "label": 1},
        {"text": "question", "text_pair": "sentence", "label": "label"},
    ),
    "csv": (SEQUENCE, {"review": "x", "class": "good"}, {"text": "review", "label": "class"}),
    "conll": (
        TOKENS,
        {"id": "0", "tokens": ["a"], "pos_tags": [1], "ner_tags": [0]},
        {"tokens": "tokens", "labels": "ner_tags"},
    ),
    "squad": (
        ANSWERS,
        {"id": "0", "title": "t", "context": "In Oslo.", "question": "Where?", "answers": SQUAD},
        {"question": "question", "context": "context", "answers": "answers"},
    ),
    "cifar": (IMAGES, {"img": {"bytes": b"x", "path": None}, "label": 3}, {"image": "img", "label": "label"}),
    "paths": (IMAGES, {"file_name": "a.png", "label": "cat"}, {"image": "file_name", "label": "label"}),
    "wikitext": (CAUSAL, {"text": "x"}, {"text": "text"}),
    "imdb as text": (MASKED, {"text": "x", "label": "good"}, {"text": "text"}),
    "one column": (MASKED, {"lines": "x", "n": 3}, {"text": "lines"}),
}


def rows(*values: dict[str, Any]) -> datasets.Dataset:
    return datasets.Dataset.from_list(list(values))


@pytest.mark.parametrize("name", KNOWN)
def test_columns_of_well_known_datasets_are_found(name):
    kind, row, wanted = KNOWN[name]
    assert TASKS[kind].columns(rows(row, row), {}) == wanted


def test_rows_of_json_are_read_by_what_is_in_them():
    features = datasets.Features({name: datasets.Json() for name in ("tokens", "ner_tags", "answers")})
    given = datasets.Dataset.from_list(
        [{"tokens": [], "ner_tags": [], "answers": None}, {"tokens": ["a"], "ner_tags": ["O"], "answers": SQUAD}],
        features=features,
    )
    assert find_columns(TOKENS, given, {}) == {"tokens": "tokens", "labels": "ner_tags"}
    more = given.add_column("question", ["?", "?"]).add_column("context", ["x", "x"])
    assert find_columns(ANSWERS, more, {})["answers"] == "answers"


def test_columns_of_any_name_are_named():
    given = rows({"body": "x", "other": "y", "verdict": True})
    assert find_columns(SEQUENCE, given, {"text": "body", "label": "verdict"}) == {"text": "body", "label": "verdict"}
    pair = {"text": "body", "text_pair": "other", "label": "verdict"}
    assert find_columns(SEQUENCE, given, pair) == pair
    assert find_columns(CAUSAL, given, {"text": "other"}) == {"text": "other"}


def said(kind: str, given: datasets.Dataset, column_map: dict[str, str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        TASKS[kind].columns(given, column_map or {})
    return str(caught.value)


def test_a_wrong_pairing_says_what_the_data_looks_like_what_is_needed_and_what_fits():
    message = said(TOKENS, rows({"text": "good " * 40, "label": 3}))
    assert "text (text, such as 'good good" in message
    assert len(message) < 700
    assert "label (a whole number, such as 3)" in message
    assert "tokens (a list of words) and ner_tags for labels (a list with the label of each word)" in message
    assert f"or take transformer_type {SEQUENCE}, which they fit" in message
    assert '{"tokens": "...", "labels": "..."}' in message
    assert f"take transformer_type {ANSWERS}" in said(CAUSAL, rows({**KNOWN["squad"][1]}))
    assert f"take transformer_type {IMAGES}" in said(SEQUENCE, rows(KNOWN["cifar"][1]))
    assert f"take transformer_type {TOKENS}" in said(MASKED, rows(KNOWN["conll"][1]).remove_columns("id"))
    used_twice = said(SEQUENCE, rows({"text": "x", "label": 1}), {"text_pair": "text"})
    assert f"take transformer_type {SEQUENCE}" not in used_twice
    assert "take transformer_type" not in said(IMAGES, rows({"number": 1.5}))
    classes = rows({"x": [0]}).cast_column("x", datasets.List(datasets.ClassLabel(names=["a"])))
    assert "x (a list of ClassLabels, such as [0])" in said(IMAGES, classes)
    assert "nothing in the first rows" in said(CAUSAL, rows({"x": None}, {"x": None}))


def test_wrong_names_are_refused_all_at_once():
    message = said(SEQUENCE, rows({"text": "x", "label": [1]}), {"text": "body", "label": "label", "answers": "text"})
    assert "3 problems" in message
    assert "column_map.text: given 'body'; allowed: one of the columns text, label" in message
    assert "Name another column; label holds a list of whole numbers" in message
    assert "column_map.answers: given 'text'; allowed: for AutoModelForSequenceClassification the keys" in message


def test_two_texts_of_which_none_is_the_usual_one_are_not_guessed():
    assert "a (text, such as 'x'), b (text, such as 'y')" in said(CAUSAL, rows({"a": "x", "b": "y"}))


def test_held_out_rows_have_the_same_columns():
    columns = {"text": "text", "label": "label"}
    check_columns(SEQUENCE, rows({"label": "a", "text": "x", "more": 1}), columns)
    with pytest.raises(UserError, match=r"column_map.label: given 'label'; allowed: one of the columns text"):
        check_columns(SEQUENCE, rows({"text": "x"}), columns)


def test_what_fits_is_told_the_most_special_first():
    assert types_that_fit(rows({"text": "x", "label": 1})) == [SEQUENCE, CAUSAL, MASKED]
    assert types_that_fit(rows(KNOWN["conll"][1]).remove_columns("id")) == [TOKENS]
    assert types_that_fit(rows({"x": 1})) == []


def test_a_number_of_labels_is_refused_where_there_are_none():
    with pytest.raises(UserError, match="num_labels: given 3; allowed: nothing for AutoModelForCausalLM"):
        TASKS[CAUSAL].shape(Part(rows({"text": "x"}), [0], "train"), TaskSettings(num_labels=3))


def test_the_tables_have_the_same_six_types_and_are_transformers_own_classes():
    assert TASKS.keys() == NEEDS.keys()
    for name, task in TASKS.items():
        assert hasattr(transformers, name)
        assert task.name == name
        assert task.needs


@pytest.mark.parametrize(
    ("name", "config", "wrong"),
    [
        (SEQUENCE, {"model_type": "bert"}, None),
        (CAUSAL, {"model_type": "qwen2"}, None),
        (MASKED, {"model_type": "llama"}, "Take transformer_type .*AutoModelForCausalLM"),
        (CAUSAL, {"model_type": "roberta"}, "Take transformer_type .*AutoModelForMaskedLM"),
        (CAUSAL, {"model_type": "roberta", "is_decoder": True}, None),
        (CAUSAL, transformers.BartConfig().to_diff_dict(), None),
        (SEQUENCE, {"model_type": "vit"}, f"Take transformer_type {IMAGES}"),
        (SEQUENCE, {"model_type": "no-such"}, "none for it.*"),
        (SEQUENCE, {}, "without model_type"),
        ("AutoModel", {"model_type": "bert"}, "one of AutoModelForSequenceClassification"),
    ],
)
def test_a_model_that_there_is_not_as_this_type_is_refused(name, config, wrong):
    problem = check_model(name, config)
    assert (problem is None) == (wrong is None)
    if wrong:
        with pytest.raises(UserError, match=f"(?s){wrong}"):
            raise UserError([problem])


def test_the_types_of_a_model_are_those_that_transformers_can_make():
    for model_type in ("bert", "gpt2", "vit", "llama", "t5"):
        config = transformers.AutoConfig.for_model(model_type)
        made = [name for name in TASKS if type(config) in getattr(transformers, name)._model_mapping]
        assert sorted(types_of(model_type)) == sorted(made)


def test_labels_that_a_model_was_trained_with_are_known():
    assert known_labels({"id2label": {"1": "b", "0": "a"}}) == ["a", "b"]
    assert known_labels({"id2label": {"1": "b", "0": "a", "10": "k"}}) == []
    assert known_labels({"id2label": {str(n): f"name {n}" for n in range(11)}}) == [f"name {n}" for n in range(11)]
    assert known_labels(transformers.BertConfig().to_dict()) == []
    assert known_labels({}) == []


def test_table_and_checks_work_without_torch():
    code = """
import json, sys
import datasets
from kfp_finetune.components.transformers_train.tasks.table import TASKS
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.training.parts import Part
rows = datasets.Dataset.from_list([{"text": "x", "label": "a"}, {"text": "x", "label": "b"}])
shape = TASKS["AutoModelForSequenceClassification"].shape(Part(rows, range(2), "train"), TaskSettings())
loaded = [name for name in ("torch", "transformers") if name in sys.modules]
print(json.dumps([shape.columns, shape.labels.config(), loaded]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    columns, config, loaded = json.loads(done.stdout)
    assert columns == {"text": "text", "label": "label"}
    assert config == {"num_labels": 2, "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    assert loaded == []
