"""Words and their labels: each word's first token learns the word's label, its others and special ones nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.transformers_train.tasks.columns import quote
from kfp_finetune.components.transformers_train.tasks.entities import are_iob, entity_figures
from kfp_finetune.components.transformers_train.tasks.labels import Labels, label_feature, read_labels
from kfp_finetune.components.transformers_train.tasks.outputs import likeliest
from kfp_finetune.components.transformers_train.tasks.rows import (
    CUT,
    IGNORED,
    Batch,
    integers,
    map_rows,
    refuse_row,
)
from kfp_finetune.components.transformers_train.tasks.scores import class_figures, first_array
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.task import Evaluated, Figures, Part, Preparation, Task
from kfp_finetune.components.transformers_train.tasks.tokenizing import encode_cut, input_names

if TYPE_CHECKING:
    import datasets


def prepare(part: Part, preparation: Preparation) -> "datasets.Dataset":
    """Tokens and labels of each row, cut where they are too long; a row in which no token has a label is left out."""
    import datasets

    columns, labels = preparation.shape.columns, preparation.shape.labels
    assert labels is not None
    feature = label_feature(part.rows, columns["labels"])
    before = space_before(preparation.processor)

    def encode(batch: Batch, places: list[str]) -> Mapping[str, list[Any]]:
        words, ids = [], []
        for row, given, place in zip(batch[columns["tokens"]], batch[columns["labels"]], places, strict=True):
            _check(row, given, columns, place)
            words.append([f"{before}{word}" if number else word for number, word in enumerate(row)])
            ids.append(list(read_labels(given, feature, labels, [place] * len(given))))
        encoded, cut = encode_cut(
            preparation.processor, preparation.settings.max_seq_len, words, is_split_into_words=True
        )
        aligned = [align(encoded.word_ids(number), row) for number, row in enumerate(ids)]
        made = {**encoded, "labels": aligned, CUT: cut}
        kept = [number for number, row in enumerate(aligned) if any(label != IGNORED for label in row)]
        return {name: [values[number] for number in kept] for name, values in made.items()}

    features = dict.fromkeys([*input_names(preparation.processor), "labels"], integers())
    return map_rows(part, list(columns.values()), encode, {**features, CUT: datasets.Value("int64")})


def _check(words: Any, labels: Any, columns: Mapping[str, str], place: str) -> None:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise refuse_row(place, f"whose {columns['tokens']} is {quote(words)}", "a list of words in every row")
    if not isinstance(labels, list) or len(labels) != len(words):
        count = f"{len(labels)} labels" if isinstance(labels, list) else quote(labels)
        raise refuse_row(place, f"with {len(words)} words and {count}", "a label for each word")


def space_before(tokenizer: Any) -> str:
    """What stands before every word but the first: a byte-level tokenizer reads the space as a part of the word."""
    state = str(tokenizer.backend_tokenizer.pre_tokenizer)
    return " " if "ByteLevel" in state and "add_prefix_space=True" not in state else ""


def align(words: Sequence[int | None], labels: Sequence[int]) -> list[int]:
    """Each token's label.

    Args:
        words: Which word each token is of; None for special tokens.
        labels: Of the words.
    """
    before = [None, *words]
    return [
        IGNORED if word is None or word == last else labels[word] for word, last in zip(words, before, strict=False)
    ]


def collator(tokenizer: Any, settings: TaskSettings) -> Callable[[list[dict[str, Any]]], Any]:
    """Fills rows up to the longest of the batch, labels with -100."""
    from transformers import DataCollatorForTokenClassification

    return DataCollatorForTokenClassification(tokenizer)


def metrics(evaluated: Evaluated) -> Figures:
    """Accuracy of words; F1 of entities where the labels are in IOB2, else macro F1 of words."""
    predicted, true = first_array(evaluated.predictions), first_array(evaluated.references)
    counted = true != IGNORED
    figures = class_figures(predicted[counted], true[counted])
    labels = evaluated.labels
    assert isinstance(labels, Labels)
    if not are_iob(labels.names):
        return figures
    tags = [
        [[labels.names[label] for label in row[kept]] for row, kept in zip(rows, counted, strict=True)]
        for rows in (predicted, true)
    ]
    return figures | entity_figures(*tags)


TASK = Task(
    name="AutoModelForTokenClassification",
    processor="fast tokenizer",
    prepare=prepare,
    collator=collator,
    keep=likeliest,
    metrics=metrics,
    figures=("accuracy", "f1", "precision", "recall"),
    best="f1",
    has_labels=True,
)
