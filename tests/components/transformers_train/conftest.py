"""Small tokenizers and models made on the spot, and what trains them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from kfp_finetune.components.transformers_train.tasks.processors import load_processor
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.components.transformers_train.tasks.table import TASKS
from kfp_finetune.components.transformers_train.tasks.task import Evaluated, Figures, Preparation, Shape

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LEARNS_FAST = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1}
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


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
        shape = self.task.shape(self.train.rows, self.settings)
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


def write_wordpiece(directory: Path, texts: Iterable[str], size: int = 600, **options: Any) -> Path:
    """A BERT tokenizer that has seen some texts."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(list(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names | options,
    )
    fast.save_pretrained(directory)
    return directory


def write_bert(directory: Path, texts: Iterable[str], size: int = 600, **changes: Any) -> Path:
    """A BERT configuration beside a tokenizer that has seen some texts."""
    write_wordpiece(directory, texts, size)
    options = {"vocab_size": size, "max_position_embeddings": 256} | SIZES | LEARNS_FAST
    transformers.BertConfig(**options | changes).save_pretrained(directory)
    return directory


def write_gpt(directory: Path, texts: list[str], size: int = 400) -> Path:
    """A GPT-2 configuration beside a byte-level tokenizer without a padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(
        directory
    )
    transformers.GPT2Config(
        vocab_size=size,
        n_positions=128,
        n_embd=64,
        n_layer=2,
        n_head=4,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=0,
    ).save_pretrained(directory)
    return directory


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
