"""The whole configuration of one training, as torchtune reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kfp_finetune.components.torchtune_train.models import Architecture
from kfp_finetune.components.torchtune_train.overrides import merge, nest
from kfp_finetune.components.torchtune_train.settings import TrainSettings

ROOM = "kfp_finetune.components.torchtune_train"
WARMUP_SHARE = 0.03
"""Share of the steps in which the learning rate rises to its peak."""


@dataclass(frozen=True)
class Steps:
    """How many updates of the weights a training makes.

    Args:
        an_epoch: In one pass over the rows.
        total: In all passes.
    """

    an_epoch: int
    total: int


def count_steps(rows: int, settings: TrainSettings, max_steps_per_epoch: int | None) -> Steps:
    """Counts steps as the recipes do: rows are dealt evenly to the processes, and an unfilled last batch is left out.

    Args:
        rows: Rows to train on.
        settings: Batch size, accumulation and number of processes.
        max_steps_per_epoch: torchtune's bound, None for none.
    """
    rows_each = -(-rows // settings.num_procs_per_node)
    an_epoch = rows_each // settings.batch_size // settings.gradient_accumulation_steps
    if max_steps_per_epoch is not None:
        an_epoch = min(an_epoch, max_steps_per_epoch)
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
        settings: What the user set.
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
        },
        "model": _model(settings, architecture),
        "checkpointer": {
            "_component_": f"{ROOM}.checkpoints.EpochCheckpointer",
            "checkpoint_dir": str(model),
            "checkpoint_files": list(weights),
            "model_type": architecture.model_type,
            "output_dir": str(training),
        },
        "resume_from_checkpoint": False,
        "optimizer": {
            "_component_": "torch.optim.AdamW",
            "lr": settings.peak_learning_rate,
            "weight_decay": 0.01,
            "fused": True,
        },
        "lr_scheduler": {
            "_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
            "num_warmup_steps": max(1, round(steps.total * WARMUP_SHARE)),
        },
        "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
        "epochs": settings.epochs,
        "max_steps_per_epoch": None,
        "batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "clip_grad_norm": 1.0,
        "shuffle": True,
        "seed": 42,
        "dtype": settings.dtype,
        "device": "auto",
        "compile": False,
        "log_every_n_steps": 1,
        "log_peak_memory_stats": True,
        "metric_logger": {
            "_component_": f"{ROOM}.metrics.MetricsFile",
            "path": str(training / "metrics.jsonl"),
            "total_steps": steps.total,
        },
    }


def _model(settings: TrainSettings, architecture: Architecture) -> dict[str, Any]:
    sizes = architecture.arguments | {"max_seq_len": settings.max_seq_len}
    if not settings.has_adapter:
        return {"_component_": architecture.builder, **sizes}
    return {
        "_component_": architecture.lora_builder,
        "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
        "apply_lora_to_mlp": True,
        "apply_lora_to_output": False,
        "lora_rank": settings.lora_rank,
        "lora_alpha": 2 * settings.lora_rank,
        "lora_dropout": 0.0,
        "use_dora": settings.method == "dora",
        "quantize_base": settings.quantizes_base,
        **sizes,
    }


def apply_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the user's own keys laid over it."""
    return merge(config, nest(overrides))


def write_config(path: Path, config: Mapping[str, Any], settings: TrainSettings) -> None:
    """Writes the configuration as YAML; its header says how to run it by hand."""
    command = f"torchrun --standalone --nproc-per-node {settings.num_procs_per_node} -m {ROOM}.worker"
    header = (
        f"# Fine-tuning with torchtune's {settings.method} recipe. To run it, or to go on from its newest epoch:\n"
        f"#   {command} \\\n#     --method {settings.method} --config {config['output_dir']}/{path.name}\n\n"
    )
    path.write_text(header + yaml.safe_dump(dict(config), sort_keys=False, width=120))
