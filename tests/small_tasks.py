"""A small real task for each transformer type, which a small model learns within seconds, on a workspace."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from small_models import save_base, write_bert, write_gpt, write_vit
from small_rows import countings, labelled, opinions, questions, sentences, shapes

from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.transformers_train.planning import make_plan
from kfp_finetune.manifests import Manifest
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.planning import Outcome

TEXTS = "AutoModelForSequenceClassification"
WORDS = "AutoModelForTokenClassification"
QUESTIONS = "AutoModelForQuestionAnswering"
CAUSAL = "AutoModelForCausalLM"
MASKED = "AutoModelForMaskedLM"
PICTURES = "AutoModelForImageClassification"


@dataclass(frozen=True)
class SmallTask:
    """A task, and a model that learns it.

    Args:
        base: Class of the base model; only a language model has its head already.
        write_model: Writes the base's configuration and its tokenizer or image processor.
        write_rows: Writes the dataset's file beside a path, and gives the file.
        settings: With which it is learned on two processes.
    """

    base: str
    write_model: Callable[[Path], Path]
    write_rows: Callable[[Path], Path]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """What the steps before plan left on a workspace."""

    root: Path
    dataset: Manifest
    model: Manifest
    settings: Mapping[str, Any]

    def plan(self, name: str = "series", **settings: Any) -> Outcome:
        return make_plan(self.dataset, self.model, name, {**self.settings, **settings}, str(self.root))

    def training(self, plan: Plan) -> Path:
        return self.root / plan.training


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A jsonl file of rows."""
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A csv file of opinions with columns of other names."""
    path = path.with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "verdict"])
        writer.writerows([row["text"], row["label"]] for row in rows)
    return path


def write_parquet(path: Path, rows: Any) -> Path:
    """A parquet file of a dataset."""
    path = path.with_suffix(".parquet")
    rows.to_parquet(path)
    return path


EVERYWHERE = {
    "num_procs_per_worker": 2,
    "batch_size": 8,
    "learning_rate": 2e-3,
    "dtype": "fp32",
    "held_out": "20%",
    "max_seq_len": 128,
}

SMALL_TASKS: Mapping[str, SmallTask] = {
    TEXTS: SmallTask(
        "BertModel",
        lambda path: write_bert(path, (row["text"] for row in opinions(200, 0)), size=300, initializer_range=0.05),
        lambda path: write_csv(path, opinions(1203, 1)),
        {"epochs": 4, "strategy": "fsdp", "column_map": {"text": "review", "label": "verdict"}, "split": "train[:50%]"},
    ),
    WORDS: SmallTask(
        "BertModel",
        lambda path: write_bert(path, (" ".join(row["tokens"]) for row in sentences(200, 0)), size=90),
        lambda path: write_parquet(path, labelled(sentences(481, 1))),
        {"epochs": 4, "strategy": "fsdp"},
    ),
    QUESTIONS: SmallTask(
        "BertForMaskedLM",
        lambda path: write_bert(path, (row[key] for row in questions(300, 0) for key in ("question", "context")), 700),
        lambda path: write_jsonl(path, questions(501, 1, 0.2, longest=40)),
        {"epochs": 5, "max_seq_len": 48, "advanced": {"doc_stride": 12}},
    ),
    CAUSAL: SmallTask(
        "GPT2LMHeadModel",
        lambda path: write_gpt(path, [row["text"] for row in countings(100, 0)]),
        lambda path: write_jsonl(path, countings(363, 1)),
        {"epochs": 4, "strategy": "fsdp", "dtype": "bf16"},
    ),
    MASKED: SmallTask(
        "BertForMaskedLM",
        lambda path: write_bert(path, (row["text"] for row in countings(100, 0)), size=60),
        lambda path: write_jsonl(path, countings(701, 1)),
        {"epochs": 6, "batch_size": 4},
    ),
    PICTURES: SmallTask(
        "ViTModel",
        write_vit,
        lambda path: write_parquet(path, shapes(1101, 1)),
        {"epochs": 7},
    ),
}


def start(directory: Path, name: str, **settings: Any) -> Given:
    """Makes a workspace with the model and the rows of a task.

    Args:
        directory: Where all of it lies.
        name: The transformer type.
        settings: Instead of those with which it is learned.
    """
    task, base = SMALL_TASKS[name], directory / "base"
    save_base(task.write_model(base), task.base)
    return given(directory, base, task.write_rows(directory / "rows"), name, **{**task.settings, **settings})


def given(directory: Path, base: Path, rows: Path, name: str, **settings: Any) -> Given:
    """A workspace with a model and a dataset.

    Args:
        directory: Where it is made.
        base: The model's directory.
        rows: The dataset's file or directory.
        name: The transformer type.
        settings: Of each plan.
    """
    root = directory / "workspace"
    dataset, model = initialize_dataset(str(rows), str(root)), initialize_model(str(base), str(root))
    return Given(root, dataset, model, {**EVERYWHERE, "transformer_type": name, **settings})
