"""What is kept of a model's outputs for the figures."""

from typing import Any


def likeliest(logits: Any, labels: Any) -> Any:
    """The likeliest class of each row, or of each token.

    Args:
        logits: Of a batch; of a model that gives more than logits, they come first.
        labels: Of the batch; not needed.
    """
    del labels
    return first(logits).argmax(dim=-1)


def start_and_end(logits: Any, labels: Any) -> Any:
    """The logits of each token to be an answer's first, and its last."""
    del labels
    return tuple(logits[:2])


def first(logits: Any) -> Any:
    """The logits, of a model that gives more."""
    return logits[0] if isinstance(logits, tuple | list) else logits
