"""Plain text becomes tokens to predict, and models learn to."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from small_rows import NUMBERS, countings

from kfp_finetune.components.transformers_train.tasks.processors import load_processor
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.table import TASKS
from kfp_finetune.components.transformers_train.tasks.task import Evaluated
from kfp_finetune.errors import UserError

CAUSAL, MASKED = "AutoModelForCausalLM", "AutoModelForMaskedLM"


@pytest.fixture(scope="module")
def bert(tmp_path_factory, make_bert) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"), (row["text"] for row in countings(100, 0)), size=60)


@pytest.fixture(scope="module")
def gpt(tmp_path_factory, make_gpt) -> Path:
    return make_gpt(tmp_path_factory.mktemp("gpt"), [row["text"] for row in countings(100, 0)])


def test_a_model_learns_to_count_from_left_to_right(gpt, case_of, train_case, tmp_path):
    case = case_of(CAUSAL, gpt, countings(300, 1), countings(60, 2))
    before, after = train_case(case, tmp_path, num_train_epochs=4)
    assert before["perplexity"] > 100
    assert after["perplexity"] < 3
    assert not case.task.greater_is_better


def test_a_model_learns_to_find_hidden_numbers(bert, case_of, train_case, tmp_path):
    case = case_of(MASKED, bert, countings(600, 1), countings(100, 2))
    before, after = train_case(case, tmp_path, num_train_epochs=6)
    assert before["masked_accuracy"] < 0.3
    assert after["masked_accuracy"] > 0.8


def test_perplexity_is_that_of_the_model_s_probabilities_whatever_the_batches(gpt, case_of, tmp_path):
    case = case_of(CAUSAL, gpt, countings(20, 1), countings(30, 3), max_seq_len=8)
    _, tokenizer, _, held_out = case.prepare()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(gpt)).eval()
    surprise = []
    for row in held_out:
        with torch.no_grad():
            chances = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        surprise += [-float(chances[place, token]) for place, token in enumerate(row["input_ids"][1:])]
    predictions, references = [], []
    fill = case.task.collator(tokenizer, case.settings)
    for begin in range(0, len(held_out), 4):
        batch = fill([held_out[number] for number in range(begin, min(begin + 4, len(held_out)))])
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        predictions += case.task.keep(logits, batch["labels"]).tolist()
        references += batch["labels"].tolist()

    def filled(rows: list[list]) -> np.ndarray:
        longest = max(map(len, rows))
        return np.array([row + [-100] * (longest - len(row)) for row in rows])

    evaluated = Evaluated(filled(predictions), filled(references), held_out, None, case.settings)
    assert case.task.metrics(evaluated)["perplexity"] == pytest.approx(math.exp(np.mean(surprise)), rel=1e-4)


def test_every_token_and_the_end_is_learned_and_nothing_of_a_long_text_is_lost(gpt, case_of):
    rows = [{"text": "one two three four five six seven"}, {"text": "  "}, {"text": "nine"}]
    _, tokenizer, train, _ = case_of(CAUSAL, gpt, rows, rows[:1], max_seq_len=8).prepare()
    whole = [*tokenizer(rows[0]["text"])["input_ids"], tokenizer.eos_token_id]
    made = list(train)
    assert [token for row in made[:-1] for token in row["input_ids"]] == whole
    assert max(len(row["input_ids"]) for row in made) == 8
    assert all(row["labels"] == row["input_ids"] for row in made)
    batch = TASKS[CAUSAL].collator(tokenizer, TaskSettings())(made)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    for row, labels in zip(made, batch["labels"].tolist(), strict=True):
        assert labels == row["labels"] + [-100] * (len(labels) - len(row["labels"]))
    assert made[-1]["labels"][-1] == tokenizer.eos_token_id


def test_a_last_piece_of_one_token_predicts_nothing_and_is_left_out(gpt, case_of):
    rows = [{"text": "one two three four five six seven"}]
    _, tokenizer, train, _ = case_of(CAUSAL, gpt, rows, rows).prepare()
    length = len(train[0]["input_ids"])
    rows = [{"text": rows[0]["text"] + " seven" * number} for number in range(12)]
    _, _, train, _ = case_of(CAUSAL, gpt, rows, rows, max_seq_len=length).prepare()
    whole = [len(tokenizer(row["text"])["input_ids"]) + 1 for row in rows]
    wanted = [piece for count in whole for piece in [length] * (count // length) + [count % length] if piece > 1]
    assert any(count % length == 1 for count in whole)
    assert [len(ids) for ids in train["input_ids"]] == wanted


def test_held_out_rows_are_masked_once_and_rows_to_train_on_anew(bert, case_of):
    rows = countings(200, 4)
    case = case_of(MASKED, bert, rows, rows, mlm_probability=0.3)
    _, tokenizer, train, held_out = case.prepare()
    assert held_out[:] == case.prepare()[-1][:]
    other = case_of(MASKED, bert, rows, rows, mlm_probability=0.3, seed=1).prepare()[-1]
    assert held_out["labels"][:] != other["labels"][:]
    batches = [TASKS[MASKED].collator(tokenizer, case.settings)(list(train)) for _ in range(2)]
    assert not torch.equal(batches[0]["labels"], batches[1]["labels"])
    assert "special_tokens_mask" not in batches[0]
    rows_again = held_out.select(range(8))
    filled = TASKS[MASKED].collator(tokenizer, case.settings)(list(rows_again))
    for row, labels in zip(rows_again, filled["labels"].tolist(), strict=True):
        assert labels[: len(row["labels"])] == row["labels"]
    whole, seen, hidden, replaced = train["input_ids"][:], 0, 0, 0
    for ids, masked, labels in zip(whole, held_out["input_ids"], held_out["labels"], strict=True):
        assert any(label != -100 for label in labels)
        for place, (token, shown, label) in enumerate(zip(ids, masked, labels, strict=True)):
            special = place in (0, len(ids) - 1)
            seen += not special
            assert label in (-100, token)
            if label == -100:
                assert shown == token
            else:
                assert not special
                hidden += 1
                replaced += shown == tokenizer.mask_token_id
    assert 0.25 < hidden / seen < 0.36
    assert 0.7 < replaced / hidden < 0.9


def test_a_batch_of_short_texts_always_has_a_hidden_token(bert, case_of):
    rows = [{"text": "one"}, {"text": ""}]
    case = case_of(MASKED, bert, rows, rows, mlm_probability=0.01)
    _, tokenizer, train, held_out = case.prepare()
    assert len(train) == len(held_out) == 1
    assert any(label != -100 for label in held_out[0]["labels"])
    mask = TASKS[MASKED].collator(tokenizer, case.settings)
    assert all((mask(list(train))["labels"] != -100).any() for _ in range(50))


def test_a_long_text_is_several_rows_for_a_masked_model_too(bert, case_of):
    rows = [{"text": " ".join(NUMBERS)}]
    _, tokenizer, train, _ = case_of(MASKED, bert, rows, rows, max_seq_len=8).prepare()
    inside = [ids[1:-1] for ids in train["input_ids"]]
    assert [token for ids in inside for token in ids] == tokenizer(rows[0]["text"])["input_ids"][1:-1]
    assert all(len(ids) <= 8 for ids in train["input_ids"])


def test_text_of_nothing_but_space_is_refused(bert, gpt, case_of):
    for name, model in ((CAUSAL, gpt), (MASKED, bert)):
        with pytest.raises(UserError, match=r"2 rows \(row 0 \(from 0\) of train .*nothing is left to learn"):
            case_of(name, model, [{"text": " "}, {"text": ""}], [{"text": "one"}]).prepare()


def test_a_tokenizer_that_cannot_hide_or_end_a_text_is_refused(bert, gpt, tmp_path):
    with pytest.raises(UserError, match=r"(?s)without a mask token.*AutoModelForCausalLM"):
        load_processor(TASKS[MASKED], gpt)
    with pytest.raises(UserError, match="without an end token"):
        load_processor(TASKS[CAUSAL], bert)
    with pytest.raises(UserError, match="a tokenizer that cannot be loaded"):
        load_processor(TASKS[CAUSAL], tmp_path)
