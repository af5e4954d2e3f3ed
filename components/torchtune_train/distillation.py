"""A second model, the teacher, that a training learns from beside its rows' answers (Hinton et al., 2015).

The loss is (1 - ratio) x that of the answers + ratio x the cross-entropy with the teacher's own distribution of each
answer's tokens. torchtune 0.6.1 has a recipe for it, for adapters alone, without clipping, accumulation by tokens, or a
bound on an epoch's steps. So its loss and its way to load a teacher are put into the recipes of all methods.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import DictConfig
from torchtune import config as torchtune_config
from torchtune import training
from torchtune.modules.loss import ForwardKLWithChunkedOutputLoss

from kfp_finetune.components.torchtune_train.first_reads import read_in_first_process
from kfp_finetune.components.torchtune_train.output_parts import make_parts_contiguous
from kfp_finetune.components.torchtune_train.recipes import load_recipe

TEACHER = ("knowledge_distillation_distributed", "KDRecipeDistributed")
"""File and class of the recipe that can load one."""


class DistilledLoss:
    """The loss of a batch's answers and of the teacher's.

    Args:
        of_answers: The recipe's loss, of logits in parts.
        teacher: A model of torchtune's that gives its logits in as many parts.
        ratio: Weight of the teacher's part, to 1.
    """

    def __init__(self, of_answers: Any, teacher: torch.nn.Module, ratio: float) -> None:
        self.ignore_index, self.num_output_chunks = of_answers.ignore_index, of_answers.num_output_chunks
        self._of_answers, self._teacher, self._ratio = of_answers, teacher, ratio
        self.of_teacher = ForwardKLWithChunkedOutputLoss(self.num_output_chunks, self.ignore_index)
        self._batch: tuple[tuple[Any, ...], Mapping[str, Any]] = ((), {})

    def notice(self, _: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Remembers what the model is about to read: the teacher reads the same. A forward pre-hook."""
        self._batch = args, kwargs

    def __call__(self, logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """The loss, a mean over the labels.

        Args:
            logits: Of the model, in parts.
            labels: Shifted by one, of shape (rows, tokens).
        """
        args, kwargs = self._batch
        with torch.no_grad():
            taught = self._teacher(*args, **kwargs)
        known = min(logits[0].shape[-1], taught[0].shape[-1])  # Sizes of one family fill their vocabularies up.
        ours, theirs = ([part[..., :known] for part in parts] for parts in (logits, taught))
        of_teacher = self.of_teacher(ours, theirs, labels)
        return (1 - self._ratio) * self._of_answers(logits, labels) + self._ratio * of_teacher


def learn_from_teacher(recipe: Any, config: DictConfig) -> None:
    """Loads the teacher and has a recipe learn from it, if its configuration names one.

    Args:
        recipe: torchtune's, set up.
        config: Whole.
    """
    if "teacher" not in config:
        return
    teacher = _load(recipe, config)
    teacher.set_num_output_chunks(recipe._loss_fn.num_output_chunks)
    make_parts_contiguous(teacher)
    loss = DistilledLoss(recipe._loss_fn, teacher, config.teacher.ratio)
    if config.compile:
        training.compile_loss(loss.of_teacher, verbose=False)
    recipe._model.register_forward_pre_hook(loss.notice, with_kwargs=True)
    recipe._loss_fn = loss


def _load(recipe: Any, config: DictConfig) -> Any:
    file, name = TEACHER
    read_in_first_process("full", config)  # It has no four bits, whatever the training's method.
    checkpointer = torchtune_config.instantiate(config.teacher.checkpointer)
    given = SimpleNamespace(
        _dtype=recipe._dtype,
        _device=recipe._device,
        _compile=config.compile,
        _is_rank_zero=torch.distributed.get_rank() == 0,
    )
    return getattr(load_recipe(file), name)._setup_teacher_model(
        given,
        model_cfg=config.teacher.model,
        custom_sharded_layers=None,
        fsdp_cpu_offload=config.fsdp_cpu_offload,
        reshard_after_forward=True,
        model_state_dict=checkpointer.load_checkpoint()[training.MODEL_KEY],
    )
