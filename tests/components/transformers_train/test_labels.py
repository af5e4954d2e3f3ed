"""Labels of every form get names and ids, once for all parts."""

from typing import Any

import datasets
import pytest

from kfp_finetune.components.transformers_train.tasks.labels import Labels, find_labels, label_feature, read_labels
from kfp_finetune.errors import UserError


def column(values: list[Any], feature: Any = None) -> datasets.Dataset:
    features = datasets.Features({"label": feature}) if feature is not None else None
    return datasets.Dataset.from_dict({"label": values}, features=features)


CLASSES = datasets.ClassLabel(names=["z", "a", "m"])


@pytest.mark.parametrize(
    ("rows", "num_labels", "names", "ids"),
    [
        (column(["no", "yes", "no"]), None, ["no", "yes"], [0, 1, 0]),
        (column([10, 9, 2, 10]), None, ["2", "9", "10"], [2, 1, 0, 2]),
        (column(["10", "9", "2"]), None, ["2", "9", "10"], [2, 1, 0]),
        (column([-1, 1]), None, ["-1", "1"], [0, 1]),
        (column(["007", "7"]), None, ["007", "7"], [0, 1]),
        (column([True, False]), None, ["false", "true"], [1, 0]),
        (column([2, 0], CLASSES), None, ["z", "a", "m"], [2, 0]),
        (column([2, 0]), 4, ["0", "1", "2", "3"], [2, 0]),
        (column([5, 1, 3]), 3, ["1", "3", "5"], [2, 0, 1]),
        (column(["b", "a"]), 3, ["a", "b", "LABEL_2"], [1, 0]),
        (column(["LABEL_3", "a"]), 4, ["LABEL_3", "a", "LABEL_2", "LABEL_4"], [0, 1]),
        (column([2, 0], CLASSES), 4, ["z", "a", "m", "LABEL_3"], [2, 0]),
        (column([[1, 0], [], [2]]), None, ["0", "1", "2"], None),
        (column([["O"], ["B-X", "O"]]), None, ["B-X", "O"], None),
        (column([[0]], datasets.List(CLASSES)), None, ["z", "a", "m"], None),
        (column([{"a": 1}["a"], "b"], datasets.Json()), None, ["1", "b"], [0, 1]),
    ],
)
def test_names_and_ids(rows, num_labels, names, ids):
    labels = find_labels(rows, "label", num_labels)
    assert list(labels.names) == names
    assert labels.config()["id2label"] == dict(enumerate(names))
    if ids is not None:
        places = [f"row {number}" for number in range(len(rows))]
        assert list(read_labels(rows["label"][:], label_feature(rows, "label"), labels, places)) == ids


@pytest.mark.parametrize(
    ("rows", "num_labels", "said"),
    [
        (column(["a", "b", "c"]), 2, "num_labels: given 2, with 3 labels in label: 'a', 'b', 'c'; allowed: at least 3"),
        (column([0, 1, 7]), 2, "num_labels: given 2, with 3 labels"),
        (column([0, 1], CLASSES), 2, "with 3 labels in label: 'z', 'a', 'm'"),
        (column(["a", "a"]), None, "1 label in label: 'a'; allowed: at least two"),
        (column([1.5, 2.5]), None, r"row 0 \(from 0\) of the rows to train on whose label is 1.5"),
        (column(["a", None]), None, r"row 1 .* whose label is None; allowed: text or a whole number"),
        (column(["a", ""]), None, "row 1 .* whose label is ''"),
    ],
)
def test_what_cannot_be_labels_is_refused(rows, num_labels, said):
    with pytest.raises(UserError, match=said):
        find_labels(rows, "label", num_labels)


def test_a_model_that_knows_the_labels_keeps_its_order():
    rows = column(["a", "c", "a"])
    assert find_labels(rows, "label", None, ["c", "b", "a"]).names == ("c", "b", "a")
    assert find_labels(rows, "label", 3, ["c", "b", "a"]).names == ("c", "b", "a")
    assert find_labels(rows, "label", 2, ["c", "b", "a"]).names == ("a", "c")
    assert find_labels(rows, "label", None, ["c", "b"]).names == ("a", "c")
    assert find_labels(rows, "label", None, ["c", "a", "a"]).names == ("a", "c")


def test_a_row_without_a_class_is_refused():
    with pytest.raises(UserError, match="row 4 whose label is -1; allowed: the number of one of 3 labels"):
        list(read_labels([-1], CLASSES, Labels(("z", "a", "m")), ["row 4"]))
