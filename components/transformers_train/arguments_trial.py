"""A tiny model is trained for a few steps with the user's `training_arguments` before a GPU is asked for.

Types say little about values: only an optimizer itself knows that a beta of 2 is none, and only the import that its
package is missing.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kfp_finetune.errors import Problem

TEXT_TYPE, IMAGE_TYPE = "AutoModelForSequenceClassification", "AutoModelForImageClassification"
STEPS = 4

NOT_TRIED: Mapping[str, Any] = {
    "tf32": None,
    "full_determinism": False,
    "torch_compile": False,
    "torch_compile_backend": None,
    "torch_compile_mode": None,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": None,
    "dataloader_persistent_workers": False,
    "dataloader_multiprocessing_context": None,
}
"""What the tried training has instead: these need a GPU, change the whole process, or start others."""


def try_arguments(given: Mapping[str, Any], transformer_type: str, learning_rate: float) -> list[Problem]:
    """Builds what arguments name, and trains with them on this CPU.

    Args:
        given: Names and types that the installed transformers knows.
        transformer_type: What is trained.
        learning_rate: Its peak.

    Returns:
        A problem for each attempt that fails, with what was said.
    """
    attempts: tuple[Callable[[], None], ...] = (
        lambda: _try_compiling(given),
        lambda: _try_loading(given),
        lambda: _try_training(given, transformer_type, learning_rate),
    )
    problems = []
    for attempt in attempts:
        try:
            attempt()
        except Exception as error:
            problems.append(
                Problem(
                    "training_arguments",
                    f"{dict(given)!r}, at which transformers fails: {error or type(error).__name__}",
                    "arguments that the installed transformers can train with",
                    "Correct the arguments or take them out.",
                )
            )
    return problems


def _try_compiling(given: Mapping[str, Any]) -> None:
    """Names a compiler's backend and mode to torch, which looks them up; nothing is compiled before a call."""
    names = {"backend": "torch_compile_backend", "mode": "torch_compile_mode"}
    options = {key: given[name] for key, name in names.items() if given.get(name) is not None}
    if not options:
        return
    import torch
    from accelerate.utils import DynamoBackend

    DynamoBackend(str(options.get("backend", DynamoBackend.INDUCTOR.value)).upper())
    torch.compile(torch.nn.Identity(), **options)


def _try_loading(given: Mapping[str, Any]) -> None:
    """Builds a loader, which starts no process before it is read."""
    prefix = "dataloader_"
    names = ("num_workers", "prefetch_factor", "persistent_workers", "multiprocessing_context")
    options = {name: given[prefix + name] for name in names if prefix + name in given}
    if not options:
        return
    from torch.utils.data import DataLoader

    DataLoader([0], **options)  # type: ignore[arg-type]


def _try_training(given: Mapping[str, Any], transformer_type: str, learning_rate: float) -> None:
    """Trains a tiny model for a few steps on this CPU."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    tried = {name: NOT_TRIED.get(name, value) for name, value in given.items()}
    with tempfile.TemporaryDirectory() as directory, _state_kept():
        arguments = TrainingArguments(
            output_dir=directory,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            num_train_epochs=1,
            per_device_train_batch_size=1,
            learning_rate=learning_rate,
            **tried,
        )
        model, row = _tiny(transformer_type)
        trainer = Trainer(model=model, args=arguments, train_dataset=[row] * STEPS)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


@contextmanager
def _state_kept() -> Iterator[None]:
    """Random numbers go on afterwards as if nothing had been trained, and what torchao compiles runs as it is."""
    import random

    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _tiny(transformer_type: str) -> tuple[Any, dict[str, Any]]:
    """A model of a type, just large enough for torchao's optimizers to take part of it, and a row to train it on."""
    import transformers

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    ids = [1, 2, 3]
    if transformer_type == IMAGE_TYPE:
        config = transformers.ViTConfig(**sizes, image_size=8, patch_size=8)
        row: dict[str, Any] = {"pixel_values": [[[0.5] * 8] * 8] * 3, "labels": 0}
    else:
        causal = transformer_type == "AutoModelForCausalLM"
        config = transformers.BertConfig(**sizes, vocab_size=8, max_position_embeddings=8, is_decoder=causal)
        row = {"input_ids": ids} | _labels(transformer_type, ids)
    return getattr(transformers, transformer_type).from_config(config), row


def _labels(transformer_type: str, ids: list[int]) -> dict[str, Any]:
    if transformer_type == "AutoModelForQuestionAnswering":
        return {"start_positions": 0, "end_positions": 1}
    if transformer_type == TEXT_TYPE:
        return {"labels": 0}
    return {"labels": [0] * len(ids) if "Token" in transformer_type else ids}
