"""Every argument of the installed transformers is checked, and what it names is tried, before a GPU is asked for."""

import random

import numpy as np
import pytest
import torch

from kfp_finetune.components.transformers_train import arguments
from kfp_finetune.components.transformers_train.arguments import check_arguments, refused
from kfp_finetune.components.transformers_train.tasks.table import TASKS

IMAGES = "AutoModelForImageClassification"
QUESTIONS = "AutoModelForQuestionAnswering"
COMMON = {
    "weight_decay": 0.01,
    "warmup_steps": 0.1,
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "optim": "adamw_torch",
    "adam_beta2": 0.95,
    "max_grad_norm": 1,
    "neftune_noise_alpha": 5,
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "dataloader_num_workers": 2,
    "dataloader_prefetch_factor": 4,
    "torch_compile": True,
    "torch_compile_mode": "reduce-overhead",
    "tf32": True,
    "full_determinism": True,
    "ddp_find_unused_parameters": None,
    "eval_accumulation_steps": 2,
}
OFFERED = {
    "activation_checkpointing", "activation_checkpointing_kwargs", "adam_beta1", "adam_beta2", "adam_epsilon",
    "average_tokens_across_devices", "dataloader_in_order",
    "dataloader_multiprocessing_context", "dataloader_num_workers", "dataloader_persistent_workers",
    "dataloader_pin_memory", "dataloader_prefetch_factor", "ddp_broadcast_buffers", "ddp_bucket_cap_mb",
    "ddp_find_unused_parameters", "ddp_static_graph", "ddp_timeout", "eval_accumulation_steps", "full_determinism",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "label_smoothing_factor", "length_column_name",
    "liger_kernel_config", "lr_scheduler_kwargs", "lr_scheduler_type", "max_grad_norm", "neftune_noise_alpha", "optim",
    "optim_args", "optim_target_modules", "per_device_eval_batch_size", "tf32", "torch_compile",
    "torch_compile_backend", "torch_compile_mode", "torch_empty_cache_steps", "train_sampling_strategy", "use_cache",
    "use_liger_kernel", "warmup_steps", "weight_decay",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def test_every_argument_of_transformers_has_been_thought_about():
    """A newer transformers may know arguments that say where something is read or sent: look at them, and say it."""
    assert {name for name in arguments._hints() if not refused({name: 1})} == OFFERED


@pytest.mark.parametrize("name", list(TASKS))
def test_what_is_usual_can_be_trained_with(name):
    smoothing = {} if name == QUESTIONS else {"label_smoothing_factor": 0.1}
    assert check_arguments(COMMON | smoothing, name) == []


@pytest.mark.parametrize(
    "given",
    [
        {"optim": "adamw_torch_8bit"},
        {"optim": "adafactor", "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2},
        {"optim": "sgd", "optim_args": "momentum=0.9,nesterov=true"},
        {"train_sampling_strategy": "batch_rebalance"},
    ],
)
def test_other_optimizers_and_orders_too(given):
    assert check_arguments(given) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"num_train_epochs": 3}, ["Set the parameter epochs."]),
        ({"per_device_train_batch_size": 3}, ["Set the parameter batch_size."]),
        ({"bf16": True}, ["Set the parameter dtype."]),
        ({"fsdp": "full_shard"}, ['Set the parameter strategy ("ddp" or "fsdp").']),
        ({"deepspeed": "/etc/passwd"}, ["Set the parameter strategy"]),
        ({"seed": 1}, ["Set the parameter advanced.seed."]),
        ({"load_best_model_at_end": True}, ["Set the parameter advanced.export_checkpoint."]),
        ({"output_dir": "/"}, ["where and when a training is saved"]),
        ({"dataloader_drop_last": True}, ["all rows count"]),
        ({"eval_strategy": "steps"}, ["evaluates after each epoch"]),
        ({"report_to": "wandb"}, ["written anyway"]),
        ({"push_to_hub": True}, ["the Hub"]),
        ({"use_cpu": True}, ["launcher"]),
        ({"remove_unused_columns": False}, ["which columns"]),
        ({"wieght_decay": 1}, ["Did you mean weight_decay?"]),
        ({"warmup_ratio": 0.1}, ["Give warmup_steps: below 1"]),
        ({"weight_decay": True}, ["from 0 to 1"]),
        ({"weight_decay": float("nan")}, ["from 0 to 1"]),
        ({"adam_beta1": "0.9"}, ["allowed: a number."]),
        ({"torch_empty_cache_steps": 1.5}, ["a whole number or null"]),
        ({"gradient_checkpointing": 1}, ["true or false or null"]),
        ({"lr_scheduler_kwargs": "/etc/passwd"}, ["an object or null"]),
        ({"optim": "adamw_tor"}, ["Did you mean adamw_torch?"]),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, ["linear, cosine"]),
        ({"train_sampling_strategy": "group_by_length"}, ["held-out rows"]),
        # what only those know that are tried
        ({"adam_beta1": 2}, ["Invalid beta parameter"]),
        ({"optim": "adamw_bnb_8bit"}, ["install `bitsandbytes`"]),
        ({"optim": "galore_adamw", "optim_target_modules": "all-linear"}, ["install `galore_torch`"]),
        ({"use_liger_kernel": True}, ["liger-kernel"]),
        ({"optim": "adamw_torch_8bit", "optim_args": "block_size=64"}, ["unsupported operand"]),
        ({"optim_args": "momentum", "optim": "sgd"}, ["not enough values"]),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"min_lr": 0}}, ["unexpected keyword argument"]),
        ({"lr_scheduler_type": "warmup_stable_decay"}, ["num_decay_steps"]),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"reentrant": True}}, ["reentrant"]),
        ({"torch_compile_mode": "fast"}, ["Unrecognized mode=fast"]),
        ({"torch_compile_backend": "mine"}, ["'MINE' is not a valid DynamoBackend"]),
        ({"dataloader_prefetch_factor": 2}, ["prefetch_factor"]),
        ({"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "thread"}, ["start method"]),
        ({"torch_empty_cache_steps": -1}, ["bigger than 0"]),
    ],
)
def test_what_cannot_be_is_refused(given, words):
    problems = check_arguments(given)
    assert len(problems) >= 1
    assert all(word in str(problems[0]) for word in words), problems[0]


def test_everything_wrong_is_said_at_once_and_no_token_is_shown():
    problems = check_arguments({"hub_token": "hf_secret", "learning_rate": 1, "nothing": 2, "optim": 3})
    assert [problem.what for problem in problems] == [
        "training_arguments.hub_token",
        "training_arguments.learning_rate",
        "training_arguments",
        "training_arguments.optim",
    ]
    assert "hf_secret" not in "".join(map(str, problems))
    assert check_arguments([1])[0].allowed == "an object with arguments by name"  # type: ignore[arg-type]


def test_the_transformer_type_and_the_learning_rate_are_looked_at():
    assert check_arguments({"label_smoothing_factor": 0.1}, QUESTIONS)[0].what.endswith("label_smoothing_factor")
    assert "input_ids" in check_arguments({"train_sampling_strategy": "batch_rebalance"}, IMAGES)[0].given
    ends = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1e-4}}
    assert "smaller than initial lr" in check_arguments(ends, learning_rate=1e-5)[0].given
    assert check_arguments(ends, learning_rate=1e-3) == []


def test_trying_leaves_the_process_as_it_was():
    def drawn() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    wanted = drawn()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    assert check_arguments({"weight_decay": 0.1, "full_determinism": True}) == []
    assert drawn() == wanted
    assert not torch.are_deterministic_algorithms_enabled()
