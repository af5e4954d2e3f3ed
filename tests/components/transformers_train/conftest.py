"""Small models made on the spot, and what trains them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from small_models import write_bert, write_gpt

from kfp_finetune.components.transformers_train.tasks.processors import load_processor
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.table import TASKS
from kfp_finetune.components.transformers_train.tasks.task import Evaluated, Figures, Preparation, Shape


@dataclass(frozen=True)
class Rows:
    """A part of a dataset."""

    rows: datasets.Dataset
    name: str = "train"

    def place(self, index: int) -> str:
        return f"row {index} (from 0) of {self.name}"


@dataclass(frozen=True)
class Case:
    """A task with a model, and rows."""

    name: str
    model: Path
    settings: TaskSettings
    train: Rows
    held_out: Rows
    changes: Mapping[str, Any] = field(default_factory=dict)
    directory: str | None = None

    @property
    def task(self):
        return TASKS[self.name]

    def prepare(self) -> tuple[Shape, Any, datasets.Dataset, datasets.Dataset]:
        shape = self.task.shape(self.train, self.settings)
        processor = load_processor(self.task, self.model)
        preparation = Preparation(processor, shape, self.settings, directory=self.directory)
        held_out = Preparation(processor, shape, self.settings, held_out=True, directory=self.directory)
        return (
            shape,
            processor,
            self.task.prepare(self.train, preparation),
            self.task.prepare(self.held_out, held_out),
        )


def learn(case: Case, directory: Path, **arguments: Any) -> tuple[Figures, Figures]:
    """Trains a new model for a task, and gives the held-out rows' figures before and after."""
    torch.set_num_threads(1)
    transformers.set_seed(0)
    task = case.task
    shape, processor, train, held_out = case.prepare()
    labels = shape.labels.config() if shape.labels else {}
    config = transformers.AutoConfig.from_pretrained(case.model, **labels, **case.changes)
    trainer = transformers.Trainer(
        model=getattr(transformers, case.name).from_config(config),
        args=transformers.TrainingArguments(
            output_dir=str(directory),
            **{
                "per_device_train_batch_size": 16,
                "per_device_eval_batch_size": 16,
                "learning_rate": 2e-3,
                "num_train_epochs": 3,
                "save_strategy": "no",
                "report_to": "none",
                "disable_tqdm": True,
                "use_cpu": True,
                "seed": 0,
                "label_names": list(task.references),
            }
            | dict(task.arguments)
            | arguments,
        ),
        data_collator=task.collator(processor, case.settings),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=processor,
        preprocess_logits_for_metrics=task.keep,
        compute_metrics=lambda done: task.metrics(
            Evaluated(done.predictions, done.label_ids, held_out, shape.labels, case.settings)
        ),
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    return tuple({name.removeprefix("eval_"): value for name, value in figures.items()} for figures in (before, after))


@pytest.fixture(scope="session")
def make_gpt() -> Callable[..., Path]:
    return write_gpt


@pytest.fixture(scope="session")
def make_bert() -> Callable[..., Path]:
    return write_bert


@pytest.fixture(scope="session")
def train_case() -> Callable[..., tuple[Figures, Figures]]:
    return learn


@pytest.fixture(scope="session")
def case_of() -> Callable[..., Case]:
    """Makes a case of lists of rows."""

    def make(name: str, model: Path, train: Any, held_out: Any, directory: str | None = None, **settings: Any) -> Case:
        parts = [
            Rows(rows if isinstance(rows, datasets.Dataset) else datasets.Dataset.from_list(rows), part)
            for rows, part in ((train, "train"), (held_out, "validation"))
        ]
        return Case(name, model, TaskSettings(**settings), *parts, directory=directory)

    return make
