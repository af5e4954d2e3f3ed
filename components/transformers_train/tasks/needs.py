"""The columns that each transformer type needs: one table, from which messages are written too."""

from collections.abc import Mapping
from dataclasses import dataclass

LABEL_KINDS = frozenset({"label", "text", "int", "bool"})
LABEL_LIST_KINDS = frozenset({"labels", "texts", "ints", "list"})
LABEL_NAMES = ("label", "labels", "class", "target", "category")
TEXT_NAMES = ("text", "sentence", "content", "document")
TEXT_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("question", "sentence"),
)


@dataclass(frozen=True)
class Need:
    """A column that a task needs.

    Args:
        key: Its key in `column_map`.
        names: The names that are taken by themselves, the likeliest first.
        kinds: What its values can be; see `columns.KINDS`.
        words: What it holds.
        only: Whether the one column of these kinds is taken whatever its name.
    """

    key: str
    names: tuple[str, ...]
    kinds: frozenset[str]
    words: str
    only: bool = False


Needs = tuple[Need, ...]

TEXT = frozenset({"text"})
ONLY_TEXT = "the only column of text can have any name"
LABEL = Need("label", LABEL_NAMES, LABEL_KINDS, "its label: text, a whole number or a ClassLabel")
PLAIN_TEXT = Need("text", TEXT_NAMES, TEXT, f"text; {ONLY_TEXT}", only=True)


def _pair(first: str, second: str) -> Needs:
    return (
        Need("text", (first,), TEXT, "a first text"),
        Need("text_pair", (second,), TEXT, "a second text"),
        LABEL,
    )


NEEDS: Mapping[str, tuple[Needs, ...]] = {
    "AutoModelForQuestionAnswering": (
        (
            Need("question", ("question",), TEXT, "text"),
            Need("context", ("context", "passage"), TEXT, "the text that the answer is a part of"),
            Need(
                "answers",
                ("answers", "answer"),
                frozenset({"answers"}),
                "the answers' `text` and `answer_start`, the character of the context where each begins; empty lists "
                "for a question without an answer",
            ),
        ),
    ),
    "AutoModelForImageClassification": (
        (
            Need(
                "image",
                ("image", "img", "image_path", "file_name", "path"),
                frozenset({"image", "bytes", "text"}),
                "a picture, its bytes, or its file's path in the dataset",
            ),
            Need("label", (*LABEL_NAMES, "fine_label"), LABEL_KINDS, LABEL.words),
        ),
    ),
    "AutoModelForTokenClassification": (
        (
            Need("tokens", ("tokens", "words"), frozenset({"texts", "list"}), "a list of words"),
            Need("labels", ("ner_tags", "tags", "labels"), LABEL_LIST_KINDS, "a list with the label of each word"),
        ),
    ),
    "AutoModelForSequenceClassification": (
        *(_pair(first, second) for first, second in TEXT_PAIRS),
        (Need("text", TEXT_NAMES, TEXT, f"text; {ONLY_TEXT}; text_pair for a second one", only=True), LABEL),
    ),
    "AutoModelForCausalLM": ((PLAIN_TEXT,),),
    "AutoModelForMaskedLM": ((PLAIN_TEXT,),),
}
"""For each transformer type the sets of columns that it takes, tried in order; the last is the one that is asked for.

The types stand in the order in which they are proposed for columns that do not fit the one that was asked for: plain
text fits a language model whatever else there is, so these come last.
"""


def needs_in_words(name: str) -> str:
    """What columns a transformer type needs.

    Args:
        name: One of `NEEDS`.
    """
    return " and ".join(f"{_names(need)} ({need.words})" for need in NEEDS[name][-1])


def _names(need: Need) -> str:
    return need.key if need.key == need.names[0] else f"{need.names[0]} for {need.key}"
