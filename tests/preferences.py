"""Small rows of preferences, and what the steps before planning leave of them on a workspace."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny
import torch

from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.plan_preferences.planning import make_plan
from kfp_finetune.manifests import Manifest
from kfp_finetune.training.planning import Outcome

SETTINGS = {"dtype": "fp32", "max_seq_len": 128, "batch_size": 4, "learning_rate": 5e-3, "held_out": "20%"}


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Prompts of words; what is wanted is the last of them, and not all of them in reverse."""
    generator = torch.Generator().manual_seed(seed)
    picks = [torch.randperm(len(tiny.WORDS), generator=generator)[:3].tolist() for _ in range(count)]
    words = [[tiny.WORDS[index] for index in pick] for pick in picks]
    return [{"prompt": " ".join(said), "chosen": said[-1], "rejected": " ".join(reversed(said))} for said in words]


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    """A jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@dataclass(frozen=True)
class Given:
    """What the steps before planning left on a workspace."""

    root: Path
    dataset: Manifest
    model: Manifest

    def plan(self, name: str = "series", **settings: Any) -> Outcome:
        return make_plan(self.dataset, self.model, name, SETTINGS | settings, str(self.root))


def start(directory: Path, found: list[dict[str, Any]], family: str = "qwen2") -> Given:
    """Makes a workspace with a model of a family and some rows."""
    base = tiny.write_model(directory / "base", family)
    data = write(directory / "pairs.jsonl", found)
    root = directory / "workspace"
    return Given(root, initialize_dataset(str(data), str(root)), initialize_model(str(base), str(root)))
