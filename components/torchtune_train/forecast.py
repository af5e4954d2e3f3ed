"""What a training with torchtune is expected to need."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np

from kfp_finetune.components.torchtune_train.families import Architecture
from kfp_finetune.components.torchtune_train.fits import Fit
from kfp_finetune.components.torchtune_train.memory import Footprint, footprint
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.components.torchtune_train.speed import flops_a_token, padded_tokens
from kfp_finetune.training.forecast import Forecast, Way

GIB = 1 << 30

Needs = Callable[[TrainSettings, Architecture, int, int], Footprint]
"""The memory for a batch of so many rows on each process, the longest of so many tokens; see `memory.footprint`."""


def forecast(
    train: TrainSettings,
    fits: Sequence[Fit],
    architecture: Architecture,
    updates: np.ndarray,
    longest: int,
    needs: Needs = footprint,
) -> Forecast:
    """What to expect of a training.

    Args:
        train: Its settings, with the batch size that is meant.
        fits: The ways to read its rows.
        architecture: The model's.
        updates: Tokens of the rows of an epoch, one update in each line, as `sampler.order_rows` deals them; without a
            line if they are not known.
        longest: Tokens of the longest row that is to be reckoned with.
        needs: The memory for a batch of such rows.
    """
    ways = [_way(train, fit, architecture, updates, longest, needs) for fit in fits]
    return Forecast(ways, longest, train.world_size, train.dtype)


def _way(
    train: TrainSettings, fit: Fit, architecture: Architecture, updates: np.ndarray, longest: int, needs: Needs
) -> Way:
    chosen = replace(train, **asdict(fit))
    tokens = padded_tokens(updates, train.data_parallel_dim, fit.batch_size)
    length = tokens / updates.size if tokens else 0.0
    return Way(
        **asdict(fit),
        memory_gib=round(needs(chosen, architecture, fit.batch_size, longest).peak / GIB, 2),
        tokens_an_epoch=tokens,
        flops_an_epoch=tokens * flops_a_token(chosen, architecture, length),
    )
