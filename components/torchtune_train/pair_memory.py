"""The memory that each process needs to train on pairs of answers; see `memory`."""

from dataclasses import replace

from kfp_finetune.components.torchtune_train.disk import BYTES
from kfp_finetune.components.torchtune_train.families import Architecture, matrix_shapes
from kfp_finetune.components.torchtune_train.log_probs import PARTS
from kfp_finetune.components.torchtune_train.memory import FLOAT, Footprint, footprint, frozen_bytes
from kfp_finetune.components.torchtune_train.settings import TrainSettings


def pair_footprint(train: TrainSettings, architecture: Architecture, pairs: int, tokens: int) -> Footprint:
    """What a training on preferences needs on each GPU.

    A pair is two rows of a batch. The reference of an adapter is the model without it; that of a model of which all
    weights are trained lies beside it.

    Args:
        train: Its settings.
        architecture: The model's.
        pairs: In a batch on each process.
        tokens: Of the longest side.
    """
    of_rows = footprint(train, architecture, 2 * pairs, tokens)
    reference = 0 if train.has_adapter else frozen_bytes(train, architecture)
    loss = _loss(train, architecture, 2 * pairs, tokens)
    return replace(of_rows, weights=of_rows.weights + reference, loss=loss)


def _loss(train: TrainSettings, architecture: Architecture, rows: int, tokens: int) -> float:
    """Bytes of logits and loss: those of the reference or the gradients, beside the model's own.

    A part of a row is in fp32 while the logarithms of its softmax are taken. Then the gradients of the output layer's
    weights are computed, if it is trained.
    """
    size = BYTES[train.dtype]
    vocabulary, width = matrix_shapes(architecture)["output"]
    logits, part = rows * tokens * vocabulary, tokens * vocabulary / PARTS
    capped = size * logits * (architecture.model_type == "GEMMA2")
    upcast = 2 if size < FLOAT else 1
    weights = 0 if train.has_adapter else 2 * size * vocabulary * width
    return capped + max(2 * size * logits + upcast * FLOAT * part, size * logits + weights)
