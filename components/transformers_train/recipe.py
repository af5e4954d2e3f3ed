"""What the processes of a training are told, as one JSON file beside its rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kfp_finetune.components.transformers_train.settings import Settings
from kfp_finetune.components.transformers_train.tasks.labels import Labels
from kfp_finetune.components.transformers_train.tasks.table import TASKS
from kfp_finetune.components.transformers_train.tasks.task import Task

RECIPE_NAME = "recipe.json"


@dataclass(frozen=True)
class Recipe:
    """A training with transformers.

    Args:
        model: The base model's directory, relative to the workspace.
        values: Of `Settings`, by name.
        label_names: Of the labels, by id; empty for a task without.
        total_steps: Updates of the weights.
    """

    model: str
    values: Mapping[str, Any]
    label_names: Sequence[str]
    total_steps: int

    @property
    def settings(self) -> Settings:
        """The values, typed."""
        return Settings(**self.values)

    @property
    def task(self) -> Task:
        """What is peculiar to the transformer type."""
        return TASKS[self.settings.transformer_type]

    @property
    def labels(self) -> Labels | None:
        """The labels, if the task has any."""
        return Labels(tuple(self.label_names)) if self.label_names else None


def write_recipe(training: Path, recipe: Recipe) -> None:
    """Writes a recipe into a training's folder."""
    (training / RECIPE_NAME).write_text(json.dumps(asdict(recipe), indent=2))


def read_recipe(training: Path) -> Recipe:
    """Reads the recipe in a training's folder."""
    return Recipe(**json.loads((training / RECIPE_NAME).read_text()))
