"""Words' labels become tokens' labels, and a model learns to find entities in sentences."""

import random
from pathlib import Path

import numpy as np
import pytest
import transformers
from small_rows import TAGS, labelled, sentences
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from kfp_finetune.components.transformers_train.tasks.entities import are_iob, entities, entity_figures
from kfp_finetune.components.transformers_train.tasks.labels import Labels
from kfp_finetune.components.transformers_train.tasks.processors import load_processor
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.table import TASKS
from kfp_finetune.components.transformers_train.tasks.task import Evaluated
from kfp_finetune.errors import UserError

NAME = "AutoModelForTokenClassification"


@pytest.fixture(scope="module")
def bert(tmp_path_factory, make_bert) -> Path:
    """Its tokenizer knows few words whole, so that most of them are several tokens."""
    texts = (" ".join(row["tokens"]) for row in sentences(200, 0))
    return make_bert(tmp_path_factory.mktemp("bert"), texts, size=90)


def test_a_model_learns_to_find_people_and_places(bert, case_of, train_case, tmp_path):
    case = case_of(NAME, bert, labelled(sentences(400, 1)), labelled(sentences(100, 2)))
    before, after = train_case(case, tmp_path, num_train_epochs=5)
    assert before["f1"] < 0.3
    assert after["f1"] > 0.9
    assert after["recall"] > 0.9
    assert after["accuracy"] > 0.95


def test_the_first_token_of_each_word_has_its_label_and_no_other(bert, case_of):
    rows = sentences(60, 3)
    _, tokenizer, train, _ = case_of(NAME, bert, labelled(rows), labelled(rows)).prepare()
    several = 0
    for row, made in zip(rows, train, strict=True):
        pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in row["tokens"]]
        wanted = [-100]
        for ids, tag in zip(pieces, row["ner_tags"], strict=True):
            wanted += [tag] + [-100] * (len(ids) - 1)
            several += len(ids) > 1
        assert made["labels"] == [*wanted, -100]
        assert made["input_ids"][1:-1] == [token for ids in pieces for token in ids]
    assert several > 60


def test_held_out_tags_in_another_order_and_tags_as_text_mean_the_same(bert, case_of):
    rows, other = sentences(10, 4), ["I-LOC", "B-LOC", "O", "I-PER", "B-PER"]
    turned = [{**row, "ner_tags": [other.index(TAGS[tag]) for tag in row["ner_tags"]]} for row in rows]
    words = [{**row, "ner_tags": [TAGS[tag] for tag in row["ner_tags"]]} for row in rows]
    _, _, train, held_out = case_of(NAME, bert, labelled(rows), labelled(turned, other)).prepare()
    assert held_out["labels"] == train["labels"]
    shape, _, as_text, _ = case_of(NAME, bert, words, words).prepare()
    assert shape.labels.names == tuple(sorted(TAGS))
    names = [[shape.labels.names[label] for label in row if label != -100] for row in as_text["labels"]]
    assert names == [row["ner_tags"] for row in words]


def test_rows_without_a_labelled_token_are_left_out_and_long_ones_cut(bert, case_of):
    rows = [
        {"tokens": ["Ada"], "ner_tags": [1]},
        {"tokens": [], "ner_tags": []},
        {"tokens": ["", " "], "ner_tags": [0, 0]},
        {"tokens": ["Paris"] * 40, "ner_tags": [3] * 40},
    ]
    _, tokenizer, train, _ = case_of(NAME, bert, labelled(rows), labelled(rows[:1]), max_seq_len=12).prepare()
    assert len(train) == 2
    long = len(tokenizer(["Paris"] * 40, is_split_into_words=True)["input_ids"])
    assert train["cut_tokens"] == [0, long - 12]
    assert len(train[1]["labels"]) == 12
    with pytest.raises(UserError, match="nothing is left to learn"):
        case_of(NAME, bert, labelled(rows), labelled(rows[1:3])).prepare()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tokens": ["Ada", "sang"], "ner_tags": [1]}, "row 1 .* with 2 words and 1 labels"),
        ({"tokens": ["Ada"], "ner_tags": None}, "row 1 .* with 1 words and None"),
        ({"tokens": None, "ner_tags": []}, "row 1 .* whose tokens is None"),
        ({"tokens": ["Ada"], "ner_tags": [-1]}, "row 1 .* whose label is -1; allowed: the number of one of 5 labels"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(bert, case_of, row, said):
    good = {"tokens": ["Ada"], "ner_tags": [1]}
    with pytest.raises(UserError, match=said):
        case_of(NAME, bert, labelled([good, row]), labelled([good])).prepare()


def spans_by_search(tags: list[str]) -> set:
    """Every stretch that is an entity by definition, among all stretches."""
    found = set()
    for begin in range(len(tags)):
        for end in range(begin + 1, len(tags) + 1):
            kinds = {tag[2:] for tag in tags[begin:end]}
            begins = tags[begin][0] == "B" or begin == 0 or tags[begin - 1][2:] != tags[begin][2:]
            goes_on = end < len(tags) and tags[end] == f"I-{tags[begin][2:]}"
            inside = all(tag[0] == "I" for tag in tags[begin + 1 : end])
            if len(kinds) == 1 and kinds != {""} and begins and inside and not goes_on:
                found.add((tags[begin][2:], begin, end))
    return found


def test_entities_are_those_of_an_exhaustive_search():
    draw = random.Random(5)
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "I-LOC"]
    pairs = [[[draw.choice(tags) for _ in range(8)] for _ in range(2)] for _ in range(400)]
    for first, second in pairs:
        assert set(entities(first)) == spans_by_search(first)
        assert set(entities(second)) == spans_by_search(second)
    both = sum(len(spans_by_search(a) & spans_by_search(b)) for a, b in pairs)
    guessed, true = (sum(len(spans_by_search(pair[side])) for pair in pairs) for side in (0, 1))
    figures = entity_figures([a for a, _ in pairs], [b for _, b in pairs])
    assert figures["precision"] == both / guessed
    assert figures["recall"] == both / true
    assert figures["f1"] == pytest.approx(2 * both / (guessed + true))


def test_figures_leave_out_what_has_no_label_and_are_of_words_where_the_tags_are_no_entities():
    true = np.array([[-100, 1, -100, 2, 0, -100], [-100, 3, 0, -100, -100, -100]])
    guess = np.array([[4, 1, 3, 2, 0, 1], [0, 0, 0, -100, -100, -100]])
    evaluated = Evaluated(guess, true, None, Labels(tuple(TAGS)), TaskSettings())
    figures = TASKS[NAME].metrics(evaluated)
    assert figures["accuracy"] == 4 / 5
    assert (figures["precision"], figures["recall"], figures["f1"]) == (1, 0.5, pytest.approx(2 / 3))
    words = TASKS[NAME].metrics(Evaluated(guess, true, None, Labels(("NOUN", "VERB", "B", "-X", "I-")), TaskSettings()))
    assert words.keys() == {"accuracy", "f1"}
    assert words["f1"] == pytest.approx((0.8 + 1 + 1 + 0) / 4)


def test_labels_of_entities_are_told_from_others():
    assert are_iob(TAGS)
    assert not are_iob(["O"])
    assert not are_iob(["NOUN", "VERB"])
    assert not are_iob(["B-", "O"])


def write_byte_level(directory: Path) -> Path:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"\s?\p{L}+|\s?[^\p{L}\s]+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "<pad>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["Zoë cooked soup and left U.S. rooms"] * 20, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<s>")
    fast.save_pretrained(directory)
    return directory


def test_words_are_read_as_in_running_text_by_a_byte_level_tokenizer(case_of, tmp_path):
    words = ["Zoë", "left", "U.S.", "rooms"]
    rows = labelled([{"tokens": words, "ner_tags": [1, 0, 3, 0]}])
    _, tokenizer, train, _ = case_of(NAME, write_byte_level(tmp_path), rows, rows).prepare()
    assert train[0]["input_ids"] == tokenizer("Zoë left U.S. rooms")["input_ids"]
    labels = train[0]["labels"]
    assert [label for label in labels if label != -100] == [1, 0, 3, 0]
    begins = [place for place, label in enumerate(labels) if label != -100]
    assert [tokenizer.decode(train[0]["input_ids"][place]) for place in begins[1:]] == [" left", " U", " rooms"]


def test_a_slow_tokenizer_is_refused(tmp_path):
    transformers.ByT5Tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="ByT5Tokenizer, which cannot say which characters"):
        load_processor(TASKS[NAME], tmp_path)
