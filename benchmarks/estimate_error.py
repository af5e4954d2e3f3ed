"""The memory that a training is expected to need, against what it takes."""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.estimate_worker import Side
from benchmarks.measure import Figure
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.plan_preferences.planning import make_plan as plan_pairs
from kfp_finetune.components.torchtune_train.forecast import Needs
from kfp_finetune.components.torchtune_train.memory import footprint
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.components.torchtune_train.pair_memory import pair_footprint
from kfp_finetune.components.torchtune_train.planning import make_plan as plan_rows
from kfp_finetune.components.torchtune_train.settings import ON_THE_FORM, TrainSettings
from kfp_finetune.manifests import Manifest
from kfp_finetune.training.planning import Outcome
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
"""What is trained on rows with one answer."""

OF_PAIRS: dict[str, dict[str, Any]] = {
    "full on pairs, fp32": FULL | {"dtype": "fp32", "batch_size": 2},
    "full on pairs, bf16": FULL | {"batch_size": 2},
    "lora on pairs, fp32": LORA | {"dtype": "fp32", "batch_size": 2},
    "lora on pairs, bf16": LORA | {"batch_size": 2},
}
"""What is trained on pairs of answers."""

GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "2"}
"""Lets glibc give what is freed back at once, as a GPU's caching allocator uses it again: by itself it raises the size
from which it does so with every large block that is freed, and what it keeps would count as taken."""


def measure(directory: Path) -> list[Figure]:
    """Trains with each of `SETTINGS` in a process of its own, and compares its peak with the expected one.

    Args:
        directory: Where to work.
    """
    with (directory / "log").open("w") as log, contextlib.redirect_stdout(log):
        prepared = prepare_kinds(directory)
        ratios = {name: _ratio(prepared.of_rows, given) for name, given in SETTINGS.items()}
        ratios |= {name: _ratio(prepared.of_pairs, given) for name, given in OF_PAIRS.items()}
    spread = f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f}"
    median = statistics.median(ratios.values())
    figures = [Figure("memory of a training, expected / taken", f"{median:.2f}", "0.9 to 1.1", spread)]
    return [*figures, *(Figure(f"... {name}", f"{ratio:.2f}", "", "") for name, ratio in ratios.items())]


@dataclass(frozen=True)
class Kind:
    """A kind of rows, and how trainings on them are planned.

    Args:
        workspace: Where.
        dataset: Rows that are all cut, and so equally long.
        small: A tiny model.
        sized: The model.
        make_plan: Of the component that plans them.
        needs: The memory that they need.
    """

    workspace: Workspace
    dataset: Manifest
    small: Manifest
    sized: Manifest
    make_plan: Callable[..., Outcome]
    needs: Needs


@dataclass(frozen=True)
class Prepared:
    """What is trained on.

    Args:
        of_rows: Rows with one answer.
        of_pairs: Pairs of answers.
    """

    of_rows: Kind
    of_pairs: Kind


def prepare_kinds(directory: Path) -> Prepared:
    """Makes models and rows.

    Args:
        directory: Where.
    """
    workspace = Workspace(directory / "workspace")
    small, sized = (
        initialize_model(str(tiny.write_model(directory / name, "llama", **shape)), str(workspace.root))
        for name, shape in {"small": SMALL, "sized": SIZED}.items()
    )

    def kind(name: str, row: Mapping[str, str], make_plan: Callable[..., Outcome], needs: Needs) -> Kind:
        rows = directory / f"{name}.jsonl"
        rows.write_text((json.dumps(row) + "\n") * ROWS)
        dataset = initialize_dataset(str(rows), str(workspace.root))
        return Kind(workspace, dataset, small, sized, make_plan, needs)

    answer = "blue green " * SIZED["max_position_embeddings"]
    pair = {"prompt": "red", "chosen": answer, "rejected": f"green {answer}"}
    return Prepared(
        kind("rows", {"input": "red", "output": answer}, plan_rows, footprint),
        kind("pairs", pair, plan_pairs, pair_footprint),
    )


def _ratio(kind: Kind, given: Mapping[str, Any]) -> float:
    train = TrainSettings(**given)
    taken = run(train.method, plan_both(kind, given))
    config = json.loads((kind.workspace.root / kind.sized.path / "config.json").read_text())
    expected = kind.needs(train, read_architecture(config), train.batch_size, train.max_seq_len)
    return (expected.peak - expected.base) / taken


def plan_both(kind: Kind, given: Mapping[str, Any]) -> list[str]:
    """Plans a training of the tiny model and one of the other; gives their configurations' files.

    Args:
        kind: Of rows.
        given: Settings of the training.
    """
    root = kind.workspace.root
    advanced = {name: value for name, value in given.items() if name not in ON_THE_FORM}
    settings = {name: value for name, value in given.items() if name in ON_THE_FORM}
    settings |= {"held_out": "10%", "advanced": {**advanced, "max_steps_per_epoch": STEPS}}
    plans = [
        kind.make_plan(kind.dataset, model, "estimate", settings, str(root)).plan for model in (kind.small, kind.sized)
    ]
    return [str(root / plan.training / "config.yaml") for plan in plans]


def run(method: str, configs: Sequence[str], side: Side = "ours") -> int:
    """The most bytes that a training takes beside what its process has before.

    Args:
        method: Of the training.
        configs: Of `plan_both`.
        side: Who reads pairs of answers; see `estimate_worker`.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "benchmarks.estimate_worker", method, side, *configs]
    ended = subprocess.run(command, env=os.environ | alone | GIVE_BACK, capture_output=True, text=True)
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {ended.stderr}")
    return int(ended.stdout.splitlines()[-1])
