"""A model's tokenizer or image processor, and what a task asks of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.transformers_train.tasks.task import Task
from kfp_finetune.errors import refuse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError)
"""What transformers raises for files that are absent or wrong, and for packages that are not installed."""


def load_processor(task: Task, model: Path) -> Any:
    """What turns rows into what a model reads; never code that comes with the model.

    Args:
        task: What the model is trained for.
        model: The model's directory.

    Raises:
        UserError: If it cannot be loaded, or cannot do what the task needs.
    """
    if task.processor == "image processor":
        return _image_processor(model)
    tokenizer = _tokenizer(model)
    if task.processor == "fast tokenizer" and not tokenizer.is_fast:
        raise refuse(
            "model",
            f"the tokenizer {type(tokenizer).__name__}, which cannot say which characters a token stands for",
            f"for {task.name} a tokenizer with a tokenizer.json",
            "Convert the tokenizer, or take a model whose tokenizer is in the library tokenizers.",
        )
    if task.name == "AutoModelForMaskedLM" and tokenizer.mask_token_id is None:
        raise refuse(
            "model",
            "a tokenizer without a mask token",
            f"for {task.name} a tokenizer that has one",
            "Take transformer_type AutoModelForCausalLM for a model that writes text from left to right.",
        )
    if task.name == "AutoModelForCausalLM" and tokenizer.eos_token_id is None:
        raise refuse(
            "model",
            "a tokenizer without an end token",
            f"for {task.name} a tokenizer that has one",
            "Set eos_token in tokenizer_config.json.",
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise refuse(
                "model",
                "a tokenizer with neither a padding token nor an end token",
                "a tokenizer that has one of them",
                "Set pad_token in tokenizer_config.json.",
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _tokenizer(model: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    except LOADING_ERRORS as error:
        raise refuse(
            "model", f"a tokenizer that cannot be loaded: {error}", "a tokenizer of transformers", "Save it again."
        ) from error


def _image_processor(model: Path) -> Any:
    """The one that works with Pillow alone, where there is one: torchvision is not needed."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(model, local_files_only=True, trust_remote_code=False, backend="pil")
    except LOADING_ERRORS as error:
        first_line = str(error).strip().partition("\n")[0]
        raise refuse(
            "model",
            f"an image processor that cannot be loaded: {first_line}",
            "a preprocessor_config.json of an image processor that works with Pillow alone",
            "Save it with the model, or take a model whose image processor does not need torchvision.",
        ) from error
