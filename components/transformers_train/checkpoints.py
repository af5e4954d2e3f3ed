"""Epochs that are whole or absent, and where a training goes on from."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback

from kfp_finetune.components.transformers_train.conclusion import BEFORE_NAME, FIGURES_NAME, HELD_OUT_FOLDER
from kfp_finetune.components.transformers_train.trainer import TaskTrainer, held_out_figures
from kfp_finetune.publishing import link_or_copy, publishing, write_atomically
from kfp_finetune.training.epochs import ADAPTER_FOLDER, STATE_FOLDER, drop_surplus, newest_epoch

PREDICTIONS_NAME = "predictions.safetensors"
"""File beside the figures with what the model made of the first held-out rows, by which an export is checked."""

PREDICTED_ROWS = 8
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
DESCRIBING = frozenset({".json", ".txt", ".jinja", ".model"})
NOT_THE_MODEL_S = frozenset({ADAPTER[1], "trainer_state.json"})
"""Endings of the files that say what a model is, and those of such an ending that do not."""

PICKLED_ARGUMENTS = "training_args.bin"
"""A file of Trainer's that holds code to run and that nothing needs."""


class EpochCheckpoints(TrainerCallback):
    """Makes an epoch of each checkpoint.

    Args:
        trainer: Whose checkpoints they are.
        training: The training's folder.
        epochs: How many there are to be; the last has no state to go on from.
        keep_last_n: Epochs to keep; 0 for all.
    """

    def __init__(self, trainer: TaskTrainer, training: Path, epochs: int, keep_last_n: int):
        self._trainer, self._training = trainer, training
        self._epochs, self._keep_last_n = epochs, keep_last_n
        self._figures: dict[str, float] = {}

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **_: Any) -> None:
        """Keeps the figures for the epoch that is saved next; before the first step they are the base's."""
        self._figures = held_out_figures(metrics)
        if state.global_step == 0 and state.is_world_process_zero:
            write_atomically(self._training / BEFORE_NAME, json.dumps(self._figures, indent=2))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Has no optimizer saved with the last epoch."""
        args.save_only_model = round(state.epoch) >= self._epochs

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Turns Trainer's checkpoint into an epoch; all processes come here."""
        torch.distributed.barrier()
        predictions = predict(self._trainer)
        if state.is_world_process_zero:
            number = round(state.epoch) - 1
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            with publishing(self._training / f"epoch_{number}") as staging:
                held_out = staging / HELD_OUT_FOLDER
                held_out.mkdir()
                save_file(predictions, held_out / PREDICTIONS_NAME)
                (held_out / FIGURES_NAME).write_text(json.dumps(self._figures, indent=2))
                lay_out(checkpoint, staging, last=number + 1 == self._epochs)
            drop_surplus(self._training, self._keep_last_n)
        torch.distributed.barrier()


def predict(trainer: TaskTrainer) -> dict[str, torch.Tensor]:
    """What the model makes of the first held-out rows; all processes take part, each with the same rows."""
    rows = trainer.eval_dataset.select(range(min(PREDICTED_ROWS, len(trainer.eval_dataset))))
    loader = trainer.get_eval_dataloader(rows)
    batch = trainer.data_collator([loader.dataset[number] for number in range(len(rows))])
    trainer.model_wrapped.eval()
    _, logits, _ = trainer.prediction_step(trainer.model_wrapped, dict(batch), prediction_loss_only=False)
    return named_logits(logits)


def named_logits(logits: Any) -> dict[str, torch.Tensor]:
    """A model's outputs as tensors by name, for a file of safetensors."""
    given = logits if isinstance(logits, tuple | list) else [logits]
    tensors = [one for one in given if isinstance(one, torch.Tensor)]
    return {f"logits_{number}": one.float().cpu().contiguous() for number, one in enumerate(tensors)}


def lay_out(checkpoint: Path, epoch: Path, last: bool) -> None:
    """Sorts a checkpoint's files into an epoch's folder.

    Args:
        checkpoint: Written by Trainer; it is gone afterwards.
        epoch: The folder to fill: a model that transformers loads, or an adapter in a folder of its own, and what
            training goes on from in another.
        last: Whether no training goes on from it.
    """
    (checkpoint / PICKLED_ARGUMENTS).unlink(missing_ok=True)
    state = epoch / STATE_FOLDER
    checkpoint.rename(state)
    weights = {path for pattern in WEIGHTS for path in state.glob(pattern)}
    described = {path for path in state.iterdir() if path.suffix in DESCRIBING and path.name not in NOT_THE_MODEL_S}
    for path in weights | described:
        link_or_copy(path, epoch / path.name)
    if (state / ADAPTER[0]).exists():
        (epoch / ADAPTER_FOLDER).mkdir()
        for name in ADAPTER:
            link_or_copy(state / name, epoch / ADAPTER_FOLDER / name)
    if last:
        shutil.rmtree(state)


def state_to_resume(training: Path) -> Path | None:
    """The folder that Trainer goes on from, or None for a training that begins."""
    newest = newest_epoch(training)
    return newest / STATE_FOLDER if newest and (newest / STATE_FOLDER).exists() else None
