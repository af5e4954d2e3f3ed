"""The memory that a training is expected to need, against what it takes."""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.torchtune_train.memory import footprint
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.components.torchtune_train.planning import make_plan
from kfp_finetune.components.torchtune_train.settings import ON_THE_FORM, TrainSettings
from kfp_finetune.manifests import Manifest
from kfp_finetune.workspace import Workspace
from tests import tiny

STEPS = 2
"""Updates of the weights: from the second on, the optimizer has its state."""

ROWS = 32

SMALL = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
"""Of the model that is trained first, so that what torch sets up once is not counted."""

SIZED: dict[str, int] = {
    "vocab_size": 16_384,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
}
"""Of the model: of the shape of a large one, and a size that a CPU trains in seconds."""

FULL: dict[str, Any] = {"method": "full", "batch_size": 4, "max_seq_len": 256}
LORA: dict[str, Any] = {"batch_size": 4, "max_seq_len": 512}
SETTINGS: dict[str, dict[str, Any]] = {
    "full, fp32": FULL | {"dtype": "fp32"},
    "full, bf16": FULL,
    "full, bf16, adamw_8bit": FULL | {"optimizer": "adamw_8bit"},
    "full, fp32, accumulated": FULL | {"dtype": "fp32", "gradient_accumulation_steps": 2},
    "lora, fp32": LORA | {"dtype": "fp32"},
    "lora, bf16": LORA,
    "lora, fp32, checkpointing": LORA | {"dtype": "fp32", "enable_activation_checkpointing": True},
    "lora, fp32, one long row": {"dtype": "fp32", "batch_size": 1, "max_seq_len": 2048},
    "dora, fp32": LORA | {"method": "dora", "dtype": "fp32"},
    "qlora, bf16": LORA | {"method": "qlora"},
}
"""What is trained."""

GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "2"}
"""Lets glibc give what is freed back at once, as a GPU's caching allocator uses it again: by itself it raises the size
from which it does so with every large block that is freed, and what it keeps would count as taken."""


def measure(directory: Path) -> list[Figure]:
    """Trains with each of `SETTINGS` in a process of its own, and compares its peak with the expected one.

    Args:
        directory: Where to work.
    """
    with (directory / "log").open("w") as log, contextlib.redirect_stdout(log):
        prepared = _prepare(directory)
        ratios = {name: _ratio(prepared, given) for name, given in SETTINGS.items()}
    spread = f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f}"
    median = statistics.median(ratios.values())
    figures = [Figure("memory of a training, expected / taken", f"{median:.2f}", "0.9 to 1.1", spread)]
    return [*figures, *(Figure(f"... {name}", f"{ratio:.2f}", "", "") for name, ratio in ratios.items())]


@dataclass(frozen=True)
class Prepared:
    """What all trainings are planned with.

    Args:
        workspace: Where.
        dataset: Rows that are all cut, and so equally long.
        small: A tiny model.
        sized: The model.
    """

    workspace: Workspace
    dataset: Manifest
    small: Manifest
    sized: Manifest


def _prepare(directory: Path) -> Prepared:
    workspace = Workspace(directory / "workspace")
    root = str(workspace.root)
    rows = directory / "rows.jsonl"
    row = {"input": "red", "output": "blue green " * SIZED["max_position_embeddings"]}
    rows.write_text((json.dumps(row) + "\n") * ROWS)
    small, sized = (
        initialize_model(str(tiny.write_model(directory / name, "llama", **shape)), root)
        for name, shape in {"small": SMALL, "sized": SIZED}.items()
    )
    return Prepared(workspace, initialize_dataset(str(rows), root), small, sized)


def _ratio(prepared: Prepared, given: Mapping[str, Any]) -> float:
    workspace, train = prepared.workspace, TrainSettings(**given)
    advanced = {name: value for name, value in given.items() if name not in ON_THE_FORM}
    settings = {name: value for name, value in given.items() if name in ON_THE_FORM}
    settings |= {"held_out": "10%", "advanced": {**advanced, "max_steps_per_epoch": STEPS}}
    plans = [
        make_plan(prepared.dataset, model, "estimate", settings, str(workspace.root)).plan
        for model in (prepared.small, prepared.sized)
    ]
    taken = _run(train.method, [str(workspace.root / plan.training / "config.yaml") for plan in plans])
    config = json.loads((workspace.root / prepared.sized.path / "config.json").read_text())
    expected = footprint(train, read_architecture(config), train.batch_size, train.max_seq_len)
    return (expected.peak - expected.base) / taken


def _run(method: str, configs: Sequence[str]) -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "benchmarks.estimate_worker", method, *configs]
    ended = subprocess.run(command, env=os.environ | alone | GIVE_BACK, capture_output=True, text=True)
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {ended.stderr}")
    return int(ended.stdout.splitlines()[-1])
