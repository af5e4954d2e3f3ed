"""The ways to put the rows of an update into memory: at once, or in smaller batches, or with less kept of each.

All of them train the very same, so whoever knows the machine may choose among them.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from kfp_finetune.components.torchtune_train.overrides import nest
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.publishing import write_atomically

FITS_NAME = "fits.json"
TOO_LARGE_NAME = "too-large.json"


@dataclass(frozen=True)
class Fit:
    """How an update's rows are read.

    Args:
        batch_size: Rows at once, on each process.
        gradient_accumulation_steps: Batches of an update.
        enable_activation_checkpointing: Whether activations are computed again in the backward pass.
    """

    batch_size: int
    gradient_accumulation_steps: int
    enable_activation_checkpointing: bool


def possible_fits(asked: TrainSettings, settled: TrainSettings) -> list[Fit]:
    """What a user's settings leave open, the fastest first; each needs less memory than the one before.

    Args:
        asked: As the user gave them.
        settled: With the batch size that is meant.
    """
    rows, most = settled.rows_a_step, settled.batch_size
    is_fixed = asked.batch_size or nest(asked.overrides).get("optimizer_in_bwd")  # which cannot accumulate
    sizes = [most] if is_fixed else [size for size in range(most, 0, -1) if rows % size == 0]
    fits = [Fit(size, rows // size, bool(asked.enable_activation_checkpointing)) for size in sizes]
    if asked.enable_activation_checkpointing is None:
        fits.append(Fit(sizes[-1], rows // sizes[-1], True))
    return fits


def write_fits(training: Path, fits: Sequence[Fit]) -> None:
    """Leaves the choice to the machine that trains.

    Args:
        training: The training's folder.
        fits: Of `possible_fits`.
    """
    (training / FITS_NAME).write_text(json.dumps([asdict(fit) for fit in fits], indent=2))


def open_fits(training: Path) -> list[Fit]:
    """What may still be chosen: without what was noted to be too large, and all that needs more.

    Args:
        training: The training's folder.
    """
    fits = [Fit(**values) for values in json.loads((training / FITS_NAME).read_text())]
    too_large = _read(training / TOO_LARGE_NAME)
    return fits[fits.index(too_large) + 1 :] if too_large in fits else fits


def note_too_large(training: Path, fit: Fit) -> bool:
    """Notes that memory did not hold what was chosen.

    Args:
        training: The training's folder.
        fit: What was chosen.

    Returns:
        Whether there is anything smaller.
    """
    write_atomically(training / TOO_LARGE_NAME, json.dumps(asdict(fit)))
    return bool(open_fits(training))


def _read(path: Path) -> Fit | None:
    with suppress(OSError, ValueError, TypeError):
        return Fit(**json.loads(path.read_text()))
    return None
