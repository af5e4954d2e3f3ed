"""One training process; torchrun starts one for each GPU.

It runs transformers' Trainer on what was planned, and goes on from the newest whole epoch.
"""

import argparse
import time
from pathlib import Path

import datasets
import torch
import transformers

from kfp_finetune.components.transformers_train.checkpoints import EpochCheckpoints, state_to_resume
from kfp_finetune.components.transformers_train.model import load_model
from kfp_finetune.components.transformers_train.prepare import ROWS_FOLDER
from kfp_finetune.components.transformers_train.recipe import read_recipe
from kfp_finetune.components.transformers_train.tasks.processors import load_processor
from kfp_finetune.components.transformers_train.trainer import StepFigures, make_trainer, training_arguments
from kfp_finetune.launch.process import die_with_parent, end_process
from kfp_finetune.training.epochs import finished_epochs
from kfp_finetune.training.measure import measure, record_result
from kfp_finetune.training.noting import note_environment
from kfp_finetune.training.start import StartWatch


def train(training: Path, workspace: Path) -> None:
    """Trains and, on the first process, writes what was measured.

    Args:
        training: The training's folder.
        workspace: Where the volume is mounted.
    """
    start = StartWatch()
    recipe, state = read_recipe(training), state_to_resume(training)
    settings = recipe.settings
    note_environment(training, "transformers", "accelerate", *(["peft"] if settings.lora_config else []))
    transformers.set_seed(settings.seed)
    processor = load_processor(recipe.task, workspace / recipe.model)
    model = load_model(recipe, workspace / recipe.model, processor)
    arguments = training_arguments(recipe, training, model, first=finished_epochs(training) == 0)
    rows = {part: datasets.load_from_disk(str(training / ROWS_FOLDER / part)) for part in ("train", "held_out")}
    trainer = make_trainer(recipe, arguments, model, processor, rows)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.add_callback(StepFigures(trainer, training, recipe.total_steps, time.monotonic))
    trainer.add_callback(EpochCheckpoints(trainer, training, settings.epochs, settings.keep_last_n_checkpoints))
    start.loaded()
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=str(state) if state else None)
    result = measure(float(trainer.tokens_read), time.monotonic() - began, arguments.device.type == "cuda")
    record_result(training, result)
    torch.distributed.destroy_process_group()


def main() -> None:
    """Reads the command line and trains."""
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training", type=Path, required=True)
    parser.add_argument("--workspace", type=Path, required=True)
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    train(given.training, given.workspace)


if __name__ == "__main__":
    main()
    end_process()
