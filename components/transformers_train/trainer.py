"""transformers' Trainer on a training's rows, with the figures of each step and each epoch kept."""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import TrainerCallback, TrainingArguments

from kfp_finetune.components.transformers_train.recipe import Recipe
from kfp_finetune.components.transformers_train.sharding import ShardingTrainer, fsdp_arguments
from kfp_finetune.components.transformers_train.tasks.task import Evaluated
from kfp_finetune.metrics import METRICS_NAME, host_memory, step_recorder
from kfp_finetune.publishing import TEMPORARY_PREFIX

CHECKPOINTS = f"{TEMPORARY_PREFIX}epoch_checkpoints"
"""Folder of a training in which Trainer writes what becomes an epoch."""

PREFIX = "eval_"
"""Before Trainer's names of figures of the held-out rows."""

OF_SPEED = frozenset({"runtime", "samples_per_second", "steps_per_second", "model_preparation_time"})
"""Trainer's figures of an evaluation that say nothing about the model."""


def training_arguments(recipe: Recipe, training: Path, model: Any, first: bool) -> TrainingArguments:
    """The arguments of a training.

    Args:
        recipe: The training.
        training: Its folder.
        model: To be trained.
        first: Whether it begins, so that the base is measured before the first step.
    """
    settings = recipe.settings
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(training / CHECKPOINTS),
        num_train_epochs=settings.epochs,
        learning_rate=settings.peak_learning_rate,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        bf16=settings.dtype == "bf16",
        seed=settings.seed,
        use_cpu=not on_gpu,
        label_names=list(recipe.task.references),
        save_strategy="epoch",
        eval_strategy="epoch",
        eval_on_start=first,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        **(fsdp_arguments(inner(model)) if settings.strategy == "fsdp" else {}),
        **{
            "per_device_eval_batch_size": settings.batch_size,
            "ddp_find_unused_parameters": False,
            "dataloader_pin_memory": on_gpu,
            **recipe.task.arguments,
            **settings.training_arguments,
        },
    )


def inner(model: Any) -> Any:
    """The model itself, without the adapter around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class TaskTrainer(ShardingTrainer):
    """A Trainer that counts what it reads.

    Args:
        kwargs: Of `Trainer`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.tokens_read = torch.zeros((), dtype=torch.int64, device=self.args.device)
        self.model_accepts_loss_kwargs = divides_its_loss(inner(self.model))

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Counts a batch's tokens, padding left out, and learns from it."""
        if (mask := inputs.get("attention_mask")) is not None:
            self.tokens_read += mask.sum()
        return super().training_step(model, inputs, *args, **kwargs)


def divides_its_loss(model: Any) -> bool:
    """Whether a model's forward pass takes Trainer's number of labels in a step for the mean.

    Trainer believes so of every model that takes any argument, and then divides the loss of others by neither the
    batches nor the processes of a step: loss and gradients are as many times too large.
    """
    return bool(
        re.search(r"self\.loss_function\([^()]*(\([^()]*\)[^()]*)*\*\*\w+", inspect.getsource(type(model).forward))
    )


def make_trainer(
    recipe: Recipe, arguments: TrainingArguments, model: Any, processor: Any, rows: Mapping[str, datasets.Dataset]
) -> TaskTrainer:
    """A Trainer for a task.

    Args:
        recipe: The training.
        arguments: From `training_arguments`.
        model: To be trained.
        processor: The model's tokenizer or image processor.
        rows: Prepared, of the parts "train" and "held_out".
    """
    task, labels, settings = recipe.task, recipe.labels, recipe.settings.task

    def figures(done: Any) -> dict[str, float]:
        return task.metrics(Evaluated(done.predictions, done.label_ids, rows["held_out"], labels, settings))

    return TaskTrainer(
        model=model,
        args=arguments,
        data_collator=task.collator(processor, settings),
        train_dataset=rows["train"],
        eval_dataset=rows["held_out"],
        processing_class=processor,
        preprocess_logits_for_metrics=task.keep,
        compute_metrics=figures,
    )


class StepFigures(TrainerCallback):
    """Writes each step's figures and prints the progress.

    Args:
        trainer: Whose tokens are counted.
        training: The training's folder.
        total_steps: Of the whole training.
        now: The time in seconds.
    """

    def __init__(self, trainer: TaskTrainer, training: Path, total_steps: int, now: Callable[[], float]):
        self._trainer = trainer
        self._record = step_recorder(training / METRICS_NAME, total_steps)
        self._now = now
        self._before = (0, now())

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        """Takes the figures of a step; all processes come here."""
        if logs is None or "loss" not in logs:
            return
        read = self._trainer.tokens_read.clone()
        torch.distributed.all_reduce(read)
        tokens, seconds = int(read) - self._before[0], self._now() - self._before[1]
        self._before = (int(read), self._now())
        if not state.is_world_process_zero:
            return
        figures = {"loss": logs["loss"], "lr": logs["learning_rate"]}
        figures |= {"grad_norm": float(logs["grad_norm"])} if "grad_norm" in logs else {}
        speed = round(tokens / max(seconds, 1e-9), 1)
        figures |= {"tokens": tokens, "seconds": round(seconds, 4), **({"tokens_per_second": speed} if tokens else {})}
        self._record(state.global_step, figures | _memory())


def _memory() -> dict[str, float]:
    """The most memory that this process has had so far, in GiB."""
    on_gpu = {"peak_memory_alloc": round(torch.cuda.max_memory_allocated() / 2**30, 3)}
    return (on_gpu if torch.cuda.is_available() else {}) | host_memory()


def held_out_figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """What an evaluation says about the model: its loss and the task's figures."""
    named = {name.removeprefix(PREFIX): float(value) for name, value in metrics.items() if name.startswith(PREFIX)}
    return {name: value for name, value in named.items() if name not in OF_SPEED}
