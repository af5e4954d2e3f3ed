"""Entities in words' tags, and how many of them were found."""

from collections.abc import Iterable, Sequence

from kfp_finetune.components.transformers_train.tasks.scores import f1
from kfp_finetune.components.transformers_train.tasks.task import Figures

OUTSIDE = "O"
Entity = tuple[str, int, int]


def are_iob(names: Sequence[str]) -> bool:
    """Whether labels are those of entities in IOB2: O, and B- or I- before a kind."""
    inside = [name for name in names if name != OUTSIDE]
    return bool(inside) and all(name[:2] in ("B-", "I-") and len(name) > 2 for name in inside)


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence: of which kind, from which word, to before which.

    B- begins one; I- goes on with one of its kind and else begins one too, as conlleval and seqeval read it.

    Args:
        tags: Of the words.
    """
    found: list[Entity] = []
    kind, begin = "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, this = tag.partition("-")
        if kind and (prefix != "I" or this != kind):
            found.append((kind, begin, place))
            kind = ""
        if this and not kind:
            kind, begin = this, place
    return found


def entity_figures(predicted: Iterable[Sequence[str]], true: Iterable[Sequence[str]]) -> Figures:
    """Precision, recall and F1 of entities: one counts as found if its kind and all of its words are right.

    Args:
        predicted: Each sentence's tags.
        true: The same.
    """
    both = guessed = there = 0
    for guesses, tags in zip(predicted, true, strict=True):
        ours, theirs = set(entities(guesses)), set(entities(tags))
        both, guessed, there = both + len(ours & theirs), guessed + len(ours), there + len(theirs)
    return {
        "precision": both / guessed if guessed else 0.0,
        "recall": both / there if there else 0.0,
        "f1": f1(both, guessed, there),
    }
