"""A loaded model as lm-evaluation-harness asks it, which is imported with this module alone."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lm_eval.api import model as model_interface
from lm_eval.api import task
from lm_eval.models import huggingface
from tqdm import tqdm
from transformers import PreTrainedModel

from kfp_finetune.components.evaluate_model.loss import Share
from kfp_finetune.progress import progress_printer

BATCH_SIZE_ON_CPU = 4


class _Harness(huggingface.HFLM):
    """The harness's model, with our progress in place of its bars."""

    def __init__(self, what: str, **options: Any) -> None:
        super().__init__(**options)
        self._what, self._done, self._total = what, 0, 0
        self._report: Callable[[int], None] = lambda done: None

    def _loglikelihood_tokens(self, requests: Sequence[Any], *args: Any, **options: Any) -> Any:
        return self._counting(requests, super()._loglikelihood_tokens, *args, **options)

    def generate_until(self, requests: Sequence[Any], *args: Any, **options: Any) -> Any:
        return self._counting(requests, super().generate_until, *args, **options)

    def _counting(self, requests: Sequence[Any], answer: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self._done, self._total = 0, len(requests)
        self._report = progress_printer(self._what, self._total, "question")
        answers = answer(requests, *args, **options)
        self._report(self._total)
        return answers

    def _model_call(self, inps: Any, *args: Any, **options: Any) -> Any:
        return self._counted(inps, super()._model_call(inps, *args, **options))

    def _model_generate(self, context: Any, *args: Any, **options: Any) -> Any:
        return self._counted(context, super()._model_generate(context, *args, **options))

    def _counted(self, batch: Any, answers: Any) -> Any:
        self._done = min(self._done + len(batch), self._total - 1)
        self._report(self._done)
        return answers


class _Processes:
    """What the harness uses of accelerate's Accelerator, which takes processes without GPUs for one alone."""

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        parts = [torch.zeros_like(tensor) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, tensor)
        return torch.stack(parts) if tensor.dim() == 0 else torch.cat(parts)

    def wait_for_everyone(self) -> None:
        torch.distributed.barrier()

    def unwrap_model(self, model: PreTrainedModel) -> PreTrainedModel:
        return model


def _no_bar(*args: Any, **options: Any) -> tqdm:
    return tqdm(*args, **{**options, "disable": True})


def harness_model(what: str, model: PreTrainedModel, tokenizer: Any, share: Share) -> huggingface.HFLM:
    """A model that the harness can ask.

    Args:
        what: Name of the work, for its progress.
        model: In evaluation mode.
        tokenizer: The model's.
        share: This process's share of the questions.
    """
    for module in (huggingface, model_interface, task):
        module.tqdm = _no_bar
    on_gpu = model.device.type == "cuda"
    batch_size = "auto" if on_gpu else BATCH_SIZE_ON_CPU
    harness = _Harness(what, pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    if share.world_size > 1:
        # Of a model that is handed over loaded, the harness leaves it to the caller who else is there.
        harness.accelerator, harness._rank, harness._world_size = _Processes(), share.rank, share.world_size
    return harness
