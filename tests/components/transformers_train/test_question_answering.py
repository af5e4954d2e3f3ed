"""Contexts become windows and answers places in them, and a model learns to find answers in long paragraphs."""

import collections
from pathlib import Path

import datasets
import numpy as np
import pytest
from small_rows import questions

from kfp_finetune.components.transformers_train.tasks.question_answering import predict
from kfp_finetune.components.transformers_train.tasks.spans import Answer, best_span, tokens_of
from kfp_finetune.components.transformers_train.tasks.squad import answer_figures
from kfp_finetune.components.transformers_train.tasks.task import Evaluated
from kfp_finetune.errors import UserError

NAME = "AutoModelForQuestionAnswering"


@pytest.fixture(scope="module")
def bert(tmp_path_factory, make_bert) -> Path:
    texts = [text for row in questions(300, 0) for text in (row["question"], row["context"])]
    return make_bert(tmp_path_factory.mktemp("bert"), texts, size=700)


def test_a_model_learns_to_find_answers_in_paragraphs_longer_than_a_window_and_where_there_is_none(
    bert, case_of, train_case, tmp_path
):
    made = [questions(600, 1, 0.2), questions(100, 2, 0.2)]
    case = case_of(NAME, bert, *made, max_seq_len=96, doc_stride=24)
    *_, held_out = case.prepare()
    assert len(held_out) > 2 * len(made[1])
    before, after = train_case(case, tmp_path, num_train_epochs=3)
    assert before["f1"] < 0.35
    assert after["f1"] > 0.9
    assert after["exact_match"] > 0.8


def test_windows_cover_the_context_and_the_tokens_of_the_answer_say_the_answer(bert, case_of):
    rows = questions(40, 3, 0.2)
    *_, windows = case_of(NAME, bert, rows, rows, max_seq_len=64, doc_stride=16).prepare()
    _, tokenizer, train, _ = case_of(NAME, bert, rows, rows, max_seq_len=64, doc_stride=16).prepare()
    assert train["start_positions"] == windows["start_positions"]
    by_row = collections.defaultdict(list)
    for window in windows:
        by_row[window["row"]].append(window)
    assert sorted(by_row) == list(range(40))
    whole = 0
    for number, row in enumerate(rows):
        context, answers = row["context"], row["answers"]["text"]
        ids = tokenizer(context, add_special_tokens=False)["input_ids"]
        covered: list[int] = []
        for window in by_row[number]:
            assert len(window["input_ids"]) <= 64
            inside = [i for i, begin in enumerate(window["begins"]) if begin >= 0]
            part = [window["input_ids"][i] for i in inside]
            overlap = 16 if covered else 0
            assert covered[len(covered) - overlap :] == part[:overlap]
            covered += part[overlap:]
            assert window["text"] in context
            first, last = window["start_positions"], window["end_positions"]
            if answers and answers[0] in window["text"]:
                assert window["text"][window["begins"][first] : window["ends"][last]] == answers[0]
                whole += 1
            else:
                assert first == last == 0
        assert covered == ids
    assert whole >= sum(bool(row["answers"]["text"]) for row in rows)


def test_characters_are_counted_and_not_bytes(bert, case_of):
    context = "🦓🦓 größer: São Paulo, ja"
    begin = context.index("São")
    good = {"question": "Which city?", "context": context, "answers": {"text": ["São Paulo"], "answer_start": [begin]}}
    *_, windows = case_of(NAME, bert, [good], [good]).prepare()
    first, last = windows[0]["start_positions"], windows[0]["end_positions"]
    assert windows[0]["text"][windows[0]["begins"][first] : windows[0]["ends"][last]] == "São Paulo"
    in_bytes = len(context[:begin].encode())
    bad = {**good, "answers": {"text": ["São Paulo"], "answer_start": [in_bytes]}}
    with pytest.raises(UserError, match=rf"answer 'São Paulo' is not at character {in_bytes} .*not of the byte"):
        case_of(NAME, bert, [bad], [good]).prepare()


@pytest.mark.parametrize("value", [{"text": "Oslo", "answer_start": 3}, [{"text": "Oslo", "answer_start": 3}]])
def test_one_answer_and_a_list_of_answers_are_read_as_squad_s(bert, case_of, value):
    squad = {"question": "Where?", "context": "In Oslo.", "answers": {"text": ["Oslo"], "answer_start": [3]}}
    wanted = case_of(NAME, bert, [squad], [squad]).prepare()[-1][0]
    other = [{**squad, "answers": value}]
    assert case_of(NAME, bert, other, other).prepare()[-1][0] == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"answers": {"text": ["Oslo"], "answer_start": []}},
            "whose answers are .* as many of text as of answer_start",
        ),
        ({"answers": {"text": ["Oslo"], "answer_start": [-5]}}, "is not at character -5"),
        ({"question": "why " * 30}, "leaves 0 of max_seq_len 20 tokens"),
        ({"context": None}, "whose context is None"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_number(bert, case_of, change, said):
    good = {"question": "Where?", "context": "In Oslo.", "answers": {"text": ["Oslo"], "answer_start": [3]}}
    with pytest.raises(UserError, match=f"row 1 .*{said}"):
        case_of(NAME, bert, [good, {**good, **change}], [good], max_seq_len=20).prepare()


def test_an_answer_is_the_best_span_of_all_windows(bert, case_of):
    rows = questions(12, 4, 0.3)
    *_, windows = case_of(NAME, bert, rows, rows, max_seq_len=48, doc_stride=8).prepare()
    draw = np.random.default_rng(0)
    start, end = draw.normal(size=(2, len(windows), 48)).astype("float32")
    start[:, 0] += 4
    for empty in (False, True):
        wanted = {}
        for row in range(len(rows)):
            spans, none = [], []
            for number, window in enumerate(windows):
                if window["row"] == row:
                    none.append(start[number, 0] + end[number, 0])
                    for a, begin in enumerate(window["begins"]):
                        for b in range(a, min(a + 5, len(window["ends"]))):
                            if begin >= 0 and window["begins"][b] >= 0:
                                text = window["text"][begin : window["ends"][b]]
                                spans.append((start[number, a] + end[number, b], text))
            best = max(spans)
            wanted[row] = "" if empty and min(none) > best[0] else best[1]
        assert predict(start, end, windows, 5, empty) == wanted
    assert best_span(start[0], end[0], np.zeros(48, bool), 5) is None


def test_the_tokens_of_an_answer_are_those_that_it_touches_if_it_lies_wholly_in_the_window():
    offsets = [(0, 2), (3, 4), (4, 8), (8, 9), (10, 13), (13, 13), (13, 14), (15, 17)]
    context = "In (Oslo) etc. or"
    answers = [Answer(context[a:b], a) for a in range(len(context)) for b in range(a + 1, len(context) + 1)]
    for low in range(len(offsets)):
        for high in range(low + 1, len(offsets) + 1):
            window = [(-1, -1), *offsets[low:high], (-1, -1)]
            begins, ends = zip(*window, strict=True)
            for answer in answers:
                letters = {place for place in range(answer.begin, answer.end) if context[place] != " "}
                touched = [n for n, (a, b) in enumerate(window) if letters & set(range(a, b)) and a >= 0]
                whole = offsets[low][0] <= answer.begin and answer.end <= offsets[high - 1][1]
                found = tokens_of(answer, begins, ends)
                if not whole or not letters:
                    assert found is None
                else:
                    assert found == (touched[0], touched[-1])


def test_windows_are_filled_up_on_the_right_whatever_the_tokenizer_does_else(bert, case_of):
    rows = questions(4, 8)
    case = case_of(NAME, bert, rows, rows, max_seq_len=64, doc_stride=8)
    _, tokenizer, train, _ = case.prepare()
    tokenizer.padding_side = "left"
    batch = case.task.collator(tokenizer, case.settings)(list(train))
    for row, ids in zip(train, batch["input_ids"].tolist(), strict=True):
        assert ids[: len(row["input_ids"])] == row["input_ids"]


def test_figures_are_squad_s(bert, case_of):
    figures = answer_figures(
        ["The grey cat!", "in Oslo", "", "Lima", "", "a"],
        [["grey Cat"], ["Oslo", "Norway"], [], [], ["Paris"], ["the"]],
    )
    assert figures["exact_match"] == pytest.approx((1 + 0 + 1 + 0 + 0 + 1) / 6)
    assert figures["f1"] == pytest.approx((1 + 2 / 3 + 1 + 0 + 0 + 1) / 6)


def test_predictions_in_another_order_are_noticed(bert, case_of):
    rows = questions(6, 5)
    case = case_of(NAME, bert, rows, rows, max_seq_len=64, doc_stride=8)
    *_, windows = case.prepare()
    size = max(len(ids) for ids in windows["input_ids"])
    perfect = np.zeros((2, len(windows), size), "float32")
    for number, window in enumerate(windows):
        perfect[0, number, window["start_positions"]] = perfect[1, number, window["end_positions"]] = 9
    positions = [np.array(windows[name][:]) for name in case.task.references]
    assert case.task.metrics(Evaluated(perfect, positions, windows, None, case.settings))["exact_match"] == 1
    turned = [one[::-1] for one in positions]
    with pytest.raises(ValueError, match="not in the order"):
        case.task.metrics(Evaluated(perfect, turned, windows, None, case.settings))


def test_rows_of_any_number_keep_their_numbers(bert, case_of):
    rows = datasets.concatenate_datasets([datasets.Dataset.from_list(questions(30, 6))] * 50)
    *_, windows = case_of(NAME, bert, rows.select([0]), rows, max_seq_len=64, doc_stride=8).prepare()
    assert sorted(set(windows["row"])) == list(range(1500))
