"""One training process; torchrun starts one for each GPU.

It runs torchtune's own distributed recipe on one configuration, and goes on from the newest whole checkpoint.
"""

import argparse
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
import yaml
from omegaconf import DictConfig
from torchtune.training.lr_schedulers import get_lr

from kfp_finetune.components.torchtune_train.adapters import initialize_alike
from kfp_finetune.components.torchtune_train.checkpoints import resume_settings
from kfp_finetune.components.torchtune_train.cpu import support_cpu
from kfp_finetune.components.torchtune_train.distillation import learn_from_teacher
from kfp_finetune.components.torchtune_train.dora import mend_magnitudes
from kfp_finetune.components.torchtune_train.first_reads import read_in_first_process
from kfp_finetune.components.torchtune_train.fits import open_fits
from kfp_finetune.components.torchtune_train.fitting import fit_batch, watched
from kfp_finetune.components.torchtune_train.intervals import SHARE
from kfp_finetune.components.torchtune_train.output_parts import make_parts_contiguous
from kfp_finetune.components.torchtune_train.overrides import merge
from kfp_finetune.components.torchtune_train.preferences import (
    learns_preferences,
    loss_of_pairs,
    mend_recipe,
    spare_logits,
)
from kfp_finetune.components.torchtune_train.quantization import restore_in
from kfp_finetune.components.torchtune_train.recipes import choose_recipe, load_recipe
from kfp_finetune.components.torchtune_train.sampler import LengthSampler
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.components.torchtune_train.steps import keep_steps
from kfp_finetune.components.torchtune_train.tensor_parallel import clip_over_meshes
from kfp_finetune.launch.process import die_with_parent, end_process
from kfp_finetune.training.measure import measure, record_result
from kfp_finetune.training.noting import note_environment
from kfp_finetune.training.plan import CHECKPOINT_MINUTES
from kfp_finetune.training.start import StartWatch

SAMPLERS = ("StatefulDistributedSampler", "DistributedSampler")
"""What the recipes call the class that says which process reads which row."""

METHODS = get_args(TrainSettings.__annotations__["method"])

FOR_GPUS = ("enable_activation_offloading", "fsdp_cpu_offload")
"""Settings that mean nothing on a CPU."""


def ready_config(path: Path) -> DictConfig:
    """The configuration with what only the machine knows: its device, what may fit it, and the epoch to go on from."""
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    config = _moved(config, config["output_dir"], str(path.parent))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fits = open_fits(path.parent)
    config = merge(config, {"device": device, **asdict(fits[0]), **resume_settings(path.parent)})
    if device == "cpu":
        config |= dict.fromkeys(FOR_GPUS, False)
    return DictConfig(config)


def _moved(value: Any, training: str, now: str) -> Any:
    """The configuration of a volume that was mounted elsewhere when it was written; both are trainings' directories."""
    roots = [str(Path(directory).parents[1]) for directory in (training, now)]
    if roots[0] == roots[1]:
        return value
    if isinstance(value, dict):
        return {name: _moved(item, training, now) for name, item in value.items()}
    is_below = isinstance(value, str) and value.startswith(f"{roots[0]}/")
    return roots[1] + value.removeprefix(roots[0]) if is_below else value


def train(
    method: str, config: DictConfig, checkpoint_minutes: float = CHECKPOINT_MINUTES, share: float = SHARE
) -> None:
    """Runs the recipe and, on the first process, writes what it measured.

    Args:
        method: One of `METHODS`.
        config: Everything the recipe reads.
        checkpoint_minutes: Between checkpoints inside an epoch; 0 for none.
        share: The most of the time that these may take.
    """
    start = StartWatch()
    of_pairs = learns_preferences(config)
    file, name = choose_recipe(method, int(os.environ["WORLD_SIZE"]), of_pairs)
    on_gpu = config.device == "cuda"
    note_environment(Path(config.output_dir), "torchtune", "torchao")
    _mend(config, on_gpu)
    read_in_first_process(method, config)
    if method != "full" or of_pairs:  # The other recipe does it itself.
        torch.distributed.init_process_group("cuda:nccl,cpu:gloo" if on_gpu else "gloo")
    module = load_recipe(file)
    for sampler in SAMPLERS:
        setattr(module, sampler, LengthSampler)
    recipe = getattr(module, name)(config)
    recipe.setup(cfg=config)
    restore_in(recipe._model, recipe._dtype)
    if method != "full" and not config.resume_from_checkpoint:
        initialize_alike(recipe._model, config.seed)
    make_parts_contiguous(recipe._model)
    if of_pairs:
        spare_logits(recipe)
    learn_from_teacher(recipe, config)
    training = Path(config.output_dir)
    fit = fit_batch(recipe, training, open_fits(training), loss=loss_of_pairs if of_pairs else None)
    if of_pairs:
        mend_recipe(recipe, config.clip_grad_norm)
    finish = keep_steps(recipe, config, checkpoint_minutes, share)
    rows = recipe._dataloader.dataset
    rows.tokens_read = 0
    readers = torch.distributed.get_world_size() // config.get("tensor_parallel_dim", 1)
    if torch.distributed.get_rank() == 0:
        optimizer = recipe._optimizer or recipe._optim_ckpt_wrapper
        recipe._metric_logger.begin(float(get_lr(optimizer)), lambda: rows.tokens_read * readers)
    start.loaded()
    began = time.monotonic()
    with watched(training, fit):
        recipe.train()
    seconds = time.monotonic() - began
    # Processes that share each matrix read the same rows.
    tokens = rows.tokens_read * readers / torch.distributed.get_world_size()
    finish()
    peak = recipe._metric_logger.peak_memory_gib if torch.distributed.get_rank() == 0 else 0.0
    record_result(training, measure(tokens, seconds, on_gpu, peak))
    recipe.cleanup()


def _mend(config: DictConfig, on_gpu: bool) -> None:
    """Replaces what of torchtune 0.6.1 does not work as it must, each for the reason that its module states."""
    mend_magnitudes(config.resume_from_checkpoint)
    if not on_gpu:
        support_cpu()
    if config.get("tensor_parallel_dim", 1) > 1:
        torch.nn.utils.clip_grad_norm_ = clip_over_meshes  # type: ignore[assignment]


def main(share: float = SHARE) -> None:
    """Reads the command line and trains.

    Args:
        share: The most of the time that checkpoints inside epochs may take.
    """
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--checkpoint-minutes", type=float, default=CHECKPOINT_MINUTES)
    arguments = parser.parse_args()
    train(arguments.method, ready_config(arguments.config), arguments.checkpoint_minutes, share)


if __name__ == "__main__":
    main()
    end_process()
