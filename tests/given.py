"""A small model and dataset on a workspace, as the steps before plan leave them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny

from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.torchtune_train.planning import make_plan
from kfp_finetune.manifests import Manifest
from kfp_finetune.training.planning import Asked, Outcome

SETTINGS = {"dtype": "fp32", "max_seq_len": 128, "batch_size": 4, "learning_rate": 5e-3}


@dataclass(frozen=True)
class Given:
    """What the steps before plan left on a workspace."""

    root: Path
    dataset: Manifest
    model: Manifest

    def plan(self, name: str = "series", asked: Asked | None = None, **settings: Any) -> Outcome:
        return make_plan(self.dataset, self.model, name, SETTINGS | settings, str(self.root), asked=asked)


def start(directory: Path, family: str = "qwen2", rows: int = 40, **changes: Any) -> Given:
    """Makes a workspace with a model of a family and some rows."""
    base = tiny.write_model(directory / "base", family, **changes)
    data = tiny.write_rows(directory / "rows.jsonl", rows)
    root = directory / "workspace"
    return Given(root, initialize_dataset(str(data), str(root)), initialize_model(str(base), str(root)))
