"""Exact match and F1 of answers, as SQuAD defines them, as shares of 1."""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

from kfp_finetune.components.transformers_train.tasks.scores import f1
from kfp_finetune.components.transformers_train.tasks.task import Figures

ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(answer: str) -> str:
    """An answer without case, punctuation, articles and surplus space."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(WITHOUT_PUNCTUATION)).split())


def answer_figures(predicted: Iterable[str], true: Iterable[Sequence[str]]) -> Figures:
    """The mean, over the questions, of the best match with one of the answers that are right.

    Args:
        predicted: One answer for each question, empty for none.
        true: Those that are right, none if the question has no answer.
    """
    scores = [
        max(_score(normalize(guess), normalize(answer)) for answer in _told_apart(answers))
        for guess, answers in zip(predicted, true, strict=True)
    ]
    exact = [
        max(normalize(guess) == normalize(answer) for answer in _told_apart(answers))
        for guess, answers in zip(predicted, true, strict=True)
    ]
    return {"exact_match": sum(exact) / len(exact), "f1": sum(scores) / len(scores)}


def _told_apart(answers: Sequence[str]) -> Sequence[str]:
    """The answers of which something is left; else the empty one."""
    return [answer for answer in answers if normalize(answer)] or [""]


def _score(guess: str, answer: str) -> float:
    ours, theirs = guess.split(), answer.split()
    if not ours or not theirs:
        return float(ours == theirs)
    return f1((Counter(ours) & Counter(theirs)).total(), len(ours), len(theirs))
