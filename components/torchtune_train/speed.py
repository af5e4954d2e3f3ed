"""The arithmetic of an epoch: tokens with what fills up their batches, and operations for each."""

import numpy as np

from kfp_finetune.components.torchtune_train.disk import adapter_parameters
from kfp_finetune.components.torchtune_train.families import Architecture, matrix_shapes
from kfp_finetune.components.torchtune_train.settings import TrainSettings


def padded_tokens(updates: np.ndarray, readers: int, rows: int) -> int:
    """Tokens of an epoch when each batch is filled up to its longest row.

    Args:
        updates: Tokens of its rows, one update in each line, as `sampler.order_rows` deals them.
        readers: Processes that read rows of their own, by turns.
        rows: In a batch on each of them; an update is made of whole batches.
    """
    batches = updates.reshape(len(updates), -1, rows, readers) if updates.size else updates.reshape(0, 1, 1, 1)
    return int(batches.max(axis=2, initial=0).sum()) * rows


def flops_a_token(train: TrainSettings, architecture: Architecture, length: float) -> float:
    """Floating-point operations of both passes, for each token.

    A pass forward takes two for each number of the matrices, one backward four: two for the inputs' gradients and two
    for the weights' (Kaplan et al., 2020, Scaling Laws, section 2.1), which are left out where weights are frozen.
    Attention takes 12 x layers x width x length (Chowdhery et al., 2022, PaLM, appendix B), which does not leave out
    what the causal mask hides. Activation checkpointing computes the layers forward once more.

    Args:
        train: Settings.
        architecture: The model's.
        length: Tokens in a row.
    """
    shapes, layers = matrix_shapes(architecture), architecture.arguments["num_layers"]
    inside = layers * sum(rows * columns for name, (rows, columns) in shapes.items() if name != "output")
    output = shapes["output"][0] * shapes["output"][1]
    adapter = adapter_parameters(train, architecture) if train.has_adapter else 0
    attention = 4 * layers * shapes["q_proj"][0] * length
    matrices = (4 if train.has_adapter else 6) * (inside + output) + 6 * adapter
    again = 2 * (inside + adapter) + attention if train.enable_activation_checkpointing else 0
    return matrices + 3 * attention + again
