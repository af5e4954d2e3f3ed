"""The whole configuration of one training, as torchtune reads it."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kfp_finetune.components.torchtune_train.models import Architecture
from kfp_finetune.components.torchtune_train.names import CHUNKED_LOSS, PREFERENCE_LOSSES, ROOM, SCHEDULERS
from kfp_finetune.components.torchtune_train.settings import TrainSettings


@dataclass(frozen=True)
class Steps:
    """How many updates of the weights a training makes.

    Args:
        an_epoch: In one pass over the rows.
        total: In all passes.
    """

    an_epoch: int
    total: int


def count_steps(rows: int, settings: TrainSettings) -> Steps:
    """Counts steps as `sampler.LengthSampler` makes them: rows that do not fill one are left out.

    Args:
        rows: Rows to train on.
        settings: Batch size, accumulation, number of processes, and the bound on an epoch.
    """
    an_epoch = rows // (settings.rows_a_step * settings.data_parallel_dim)
    if settings.max_steps_per_epoch:
        an_epoch = min(an_epoch, settings.max_steps_per_epoch)
    return Steps(an_epoch, an_epoch * settings.epochs)


def build_config(
    settings: TrainSettings,
    architecture: Architecture,
    model: Path,
    weights: Sequence[str],
    training: Path,
    steps: Steps,
) -> dict[str, Any]:
    """The configuration of a training, before the user's overrides.

    Args:
        settings: What the user set, with its batch size settled.
        architecture: The model's.
        model: The model's directory.
        weights: Names of its safetensors files.
        training: The training's directory.
        steps: How many updates there will be.
    """
    return {
        "output_dir": str(training),
        "tokenizer": {
            "_component_": f"{ROOM}.tokenizers.ChatTokenizer",
            "path": str(model),
            "max_seq_len": settings.max_seq_len,
        },
        "dataset": {
            "_component_": f"{ROOM}.data.TokenDataset",
            "path": str(training / "tokens" / "train"),
            "packed": settings.packed,
            "max_seq_len": settings.max_seq_len,
            "rows_a_step": settings.rows_a_step,
            "seed": settings.seed,
        },
        "model": _model(settings, architecture),
        "checkpointer": {
            "_component_": f"{ROOM}.checkpoints.EpochCheckpointer",
            "checkpoint_dir": str(model),
            "checkpoint_files": list(weights),
            "model_type": architecture.model_type,
            "output_dir": str(training),
            "keep_last_n": settings.keep_last_n_checkpoints,
        },
        "resume_from_checkpoint": False,
        "optimizer": _optimizer(settings),
        "lr_scheduler": {
            "_component_": SCHEDULERS[settings.lr_scheduler],
            "num_warmup_steps": round(steps.total * settings.warmup_ratio),
        },
        "loss": {"_component_": CHUNKED_LOSS, "num_output_chunks": settings.num_output_chunks},
        "epochs": settings.epochs,
        # Always given: the recipes would carry the gradients of an epoch's last, unfilled step into the next epoch.
        "max_steps_per_epoch": steps.an_epoch,
        "batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "clip_grad_norm": settings.clip_grad_norm or None,
        "shuffle": True,
        "seed": settings.seed,
        "dtype": settings.dtype,
        "device": "auto",
        "compile": settings.compile,
        "enable_activation_checkpointing": bool(settings.enable_activation_checkpointing),
        "enable_activation_offloading": settings.enable_activation_offloading,
        "fsdp_cpu_offload": settings.fsdp_cpu_offload,
        **_tensor_parallel(settings),
        "log_every_n_steps": 1,
        "log_peak_memory_stats": True,
        "metric_logger": {
            "_component_": f"{ROOM}.metrics.MetricsFile",
            "path": str(training / "metrics.jsonl"),
            "total_steps": steps.total,
            "loggers": settings.metric_loggers,
        },
    }


def for_preferences(
    config: Mapping[str, Any], settings: TrainSettings, loss: str, beta: float, label_smoothing: float
) -> dict[str, Any]:
    """A configuration for pairs of answers, from that for rows with one.

    Args:
        config: From `build_config`.
        settings: What the user set.
        loss: "dpo" or "rso".
        beta: How strongly the model is held to its base.
        label_smoothing: Share of the pairs that are taken to be the wrong way round; for dpo.
    """
    dataset = {name: config["dataset"][name] for name in ("path", "rows_a_step", "seed")}
    arguments = {"beta": beta, "label_smoothing": label_smoothing} if loss == "dpo" else {"gamma": beta}
    changed = {
        **config,
        "dataset": {"_component_": f"{ROOM}.data.PairDataset", **dataset},
        "loss": {"_component_": PREFERENCE_LOSSES[loss], **arguments},
    }
    # An adapter's reference is the model with the adapter switched off.
    return changed if settings.has_adapter else {**changed, "ref_checkpointer": deepcopy(config["checkpointer"])}


def with_teacher(
    config: Mapping[str, Any],
    settings: TrainSettings,
    architecture: Architecture,
    model: Path,
    weights: Sequence[str],
    ratio: float,
) -> dict[str, Any]:
    """A configuration with a teacher, from that without one.

    Args:
        config: From `build_config`.
        settings: What the user set.
        architecture: The teacher's.
        model: The teacher's directory.
        weights: Names of its safetensors files.
        ratio: Weight of what the teacher says, to 1.
    """
    files = {"checkpoint_dir": str(model), "checkpoint_files": list(weights), "model_type": architecture.model_type}
    sizes = architecture.arguments | {"max_seq_len": settings.max_seq_len}
    teacher = {
        "model": {"_component_": architecture.builder, **sizes},
        "checkpointer": {**config["checkpointer"], **files},
        "ratio": ratio,
    }
    return {**config, "teacher": teacher}


def _optimizer(settings: TrainSettings) -> dict[str, Any]:
    common = {"lr": settings.peak_learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw_8bit":
        return {"_component_": "torchao.optim.AdamW8bit", **common}
    if settings.tensor_parallel_dim > 1:
        # Neither kind can take matrices that all processes share and matrices that only some do in one call.
        return {"_component_": "torch.optim.AdamW", **common, "fused": False, "foreach": False}
    return {"_component_": "torch.optim.AdamW", **common, "fused": True}


def _tensor_parallel(settings: TrainSettings) -> dict[str, Any]:
    if settings.tensor_parallel_dim == 1:
        return {}
    plan = {"_component_": "torchtune.models.llama3.base_llama_tp_plan"}
    return {"tensor_parallel_dim": settings.tensor_parallel_dim, "tensor_parallel_plan": plan}


def _model(settings: TrainSettings, architecture: Architecture) -> dict[str, Any]:
    sizes = architecture.arguments | {"max_seq_len": settings.max_seq_len}
    if settings.quantization_aware:
        rounded = {"builder": architecture.builder, "bits": settings.quantization_aware}
        return {"_component_": f"{ROOM}.quantization_aware.rounded_model", **rounded, **sizes}
    if not settings.has_adapter:
        return {"_component_": architecture.builder, **sizes}
    return {
        "_component_": architecture.lora_builder,
        "lora_attn_modules": settings.lora_attn_modules,
        "apply_lora_to_mlp": settings.apply_lora_to_mlp,
        "apply_lora_to_output": settings.apply_lora_to_output,
        "lora_rank": settings.lora_rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.lora_dropout,
        "use_dora": settings.has_magnitudes,
        "quantize_base": settings.quantizes_base,
        **sizes,
    }


def write_config(path: Path, config: Mapping[str, Any], settings: TrainSettings) -> None:
    """Writes the configuration as YAML; its header says how to run it by hand."""
    command = f"torchrun --standalone --nproc-per-node {settings.num_procs_per_node} -m {ROOM}.worker"
    header = (
        f"# Fine-tuning with torchtune's {settings.method} recipe. To run it, or to go on from its newest checkpoint:\n"
        f"#   {command} \\\n#     --method {settings.method} --config {config['output_dir']}/{path.name}\n\n"
    )
    path.write_text(header + yaml.safe_dump(dict(config), sort_keys=False, width=120))
