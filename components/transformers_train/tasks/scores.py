"""Figures of classes: accuracy and F1."""

from collections.abc import Sequence

import numpy as np

from kfp_finetune.components.transformers_train.tasks.task import Evaluated, Figures


def row_figures(evaluated: Evaluated) -> Figures:
    """Accuracy and macro F1 of rows that have a label each.

    Args:
        evaluated: With the likeliest label of each row.
    """
    return class_figures(first_array(evaluated.predictions), first_array(evaluated.references))


def class_figures(predicted: np.ndarray, true: np.ndarray) -> Figures:
    """Accuracy, and F1 as the mean over the classes that occur in either.

    Args:
        predicted: Ids.
        true: Ids.
    """
    classes = np.union1d(predicted, true)
    return {
        "accuracy": float(np.mean(predicted == true)),
        "f1": float(np.mean([f1(*counts(predicted == one, true == one)) for one in classes])),
    }


def counts(predicted: np.ndarray, true: np.ndarray) -> tuple[int, int, int]:
    """How many are both, predicted and true."""
    return int(np.sum(predicted & true)), int(np.sum(predicted)), int(np.sum(true))


def f1(both: int, predicted: int, true: int) -> float:
    """The harmonic mean of precision and recall; 0 where there is nothing of either."""
    return 2 * both / (predicted + true) if predicted + true else 0.0


def first_array(arrays: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """The one array that is meant, of a model that gives several."""
    return arrays if isinstance(arrays, np.ndarray) else arrays[0]
