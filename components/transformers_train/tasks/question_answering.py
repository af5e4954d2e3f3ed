"""Questions, and their answers as parts of a context, which is read in windows where it is long."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kfp_finetune.components.transformers_train.tasks.outputs import start_and_end
from kfp_finetune.components.transformers_train.tasks.rows import Batch, integers, map_rows, refuse_row, texts
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.spans import (
    OUTSIDE,
    Answer,
    best_span,
    read_answers,
    tokens_of,
)
from kfp_finetune.components.transformers_train.tasks.squad import answer_figures
from kfp_finetune.components.transformers_train.tasks.task import Evaluated, Figures, Part, Preparation, Task
from kfp_finetune.components.transformers_train.tasks.tokenizing import input_names

if TYPE_CHECKING:
    import datasets

FEWEST_CONTEXT_TOKENS = 4
POSITIONS = ("start_positions", "end_positions")


def prepare(part: Part, preparation: Preparation) -> "datasets.Dataset":
    """Windows of each row, each with the first and last token of the first answer.

    A window that does not hold the whole answer, or whose row has none, has the place of the first special token for
    both. Of the rows held out, each window also says what its tokens stand for, so that answers can be read from it.
    """
    import datasets

    columns, tokenizer = preparation.shape.columns, preparation.processor
    names = input_names(tokenizer)
    number, text = datasets.Value("int64"), datasets.Value("string")
    features = dict.fromkeys(names, integers()) | dict.fromkeys(POSITIONS, number)
    if preparation.held_out:
        features |= {"row": number, "text": text, "answers": datasets.List(text)}
        features |= {"begins": integers(), "ends": integers(), "no_answer": number}
    rows_before = 0

    def encode(batch: Batch, places: list[str]) -> Mapping[str, list[Any]]:
        nonlocal rows_before
        made: dict[str, list[Any]] = {name: [] for name in features}
        given = [texts(batch, columns[key], places) for key in ("question", "context")]
        for index, (question, context, value, place) in enumerate(
            zip(*given, batch[columns["answers"]], places, strict=True)
        ):
            answers = read_answers(value, context, place)
            for window in _windows(tokenizer, question, context, answers, preparation.settings, place):
                window["row"] = rows_before + index
                for name in features:
                    made[name].append(window[name])
        rows_before += len(places)
        return made

    return map_rows(part, list(columns.values()), encode, features)


def _windows(
    tokenizer: Any, question: str, context: str, answers: Sequence[Answer], settings: TaskSettings, place: str
) -> Iterator[dict[str, Any]]:
    room = settings.max_seq_len - len(tokenizer(question, "", truncation=False, verbose=False)["input_ids"])
    if room < FEWEST_CONTEXT_TOKENS:
        raise refuse_row(
            place,
            f"whose question leaves {max(room, 0)} of max_seq_len {settings.max_seq_len} tokens for its context",
            f"at least {FEWEST_CONTEXT_TOKENS}, so a larger max_seq_len or a shorter question",
        )
    encoded = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=settings.max_seq_len,
        stride=min(settings.doc_stride, room // 2),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    for window, ids in enumerate(encoded["input_ids"]):
        offsets, sides = encoded["offset_mapping"][window], encoded.sequence_ids(window)
        begins, ends = (
            [offset[side] if which == 1 else OUTSIDE for offset, which in zip(offsets, sides, strict=True)]
            for side in (0, 1)
        )
        no_answer = ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0
        first, last = (tokens_of(answers[0], begins, ends) if answers else None) or (no_answer, no_answer)
        from_here = min((begin for begin in begins if begin != OUTSIDE), default=0)
        yield {
            **{name: encoded[name][window] for name in encoded if name != "offset_mapping"},
            "start_positions": first,
            "end_positions": last,
            "text": context[from_here : max(ends)],
            "begins": [begin if begin == OUTSIDE else begin - from_here for begin in begins],
            "ends": [end if end == OUTSIDE else end - from_here for end in ends],
            "answers": [answer.text for answer in answers],
            "no_answer": no_answer,
        }


def collator(tokenizer: Any, settings: TaskSettings) -> Callable[[list[dict[str, Any]]], Any]:
    """Fills windows up to the longest of the batch, on the right: the places of answers are counted from the left."""
    from transformers import DataCollatorWithPadding

    tokenizer.padding_side = "right"
    return DataCollatorWithPadding(tokenizer)


def metrics(evaluated: Evaluated) -> Figures:
    """Exact match and F1 of the likeliest answers."""
    windows = evaluated.prepared
    for name, given in zip(POSITIONS, evaluated.references, strict=True):
        if not np.array_equal(np.asarray(windows[name][:]), np.ravel(given)):
            raise ValueError(f"the predictions are not in the order of the held-out windows: {name} differ")
    rows = windows["row"][:]
    answers = dict(zip(rows, windows["answers"][:], strict=True))
    start, end = evaluated.predictions[0], evaluated.predictions[1]
    may_be_empty = not all(answers.values())
    guesses = predict(start, end, windows, evaluated.settings.max_answer_len, may_be_empty)
    return answer_figures([guesses[row] for row in answers], answers.values())


def predict(
    start: np.ndarray, end: np.ndarray, windows: "datasets.Dataset", longest: int, may_be_empty: bool
) -> dict[int, str]:
    """The answer of each row: the likeliest part of any of its windows.

    Where answers may be empty, it is empty if every window's score for that is above the best part's.

    Args:
        start: Of each window, the logits of its tokens to be the first.
        end: To be the last.
        windows: Held-out rows as `prepare` makes them.
        longest: Tokens that an answer has at most.
        may_be_empty: Whether there are questions without an answer.
    """
    best: dict[int, tuple[float, str]] = {}
    empty: dict[int, float] = {}
    for window, starts, ends in zip(windows, start, end, strict=True):
        row, begins = window["row"], np.array(window["begins"])
        size = len(begins)
        score, text = -np.inf, ""
        if span := best_span(starts[:size], ends[:size], begins != OUTSIDE, longest):
            score, first, last = span
            text = window["text"][begins[first] : window["ends"][last]]
        best[row] = max(best.get(row, (-np.inf, "")), (score, text), key=lambda found: found[0])
        none = float(starts[window["no_answer"]] + ends[window["no_answer"]])
        empty[row] = min(empty.get(row, np.inf), none)
    return {row: "" if may_be_empty and empty[row] > score else text for row, (score, text) in best.items()}


TASK = Task(
    name="AutoModelForQuestionAnswering",
    processor="fast tokenizer",
    prepare=prepare,
    collator=collator,
    keep=start_and_end,
    metrics=metrics,
    figures=("exact_match", "f1"),
    best="f1",
    references=POSITIONS,
)
