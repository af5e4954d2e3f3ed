"""What a user can set, with its types and ranges; checked as a whole, without torch."""

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from kfp_finetune import settings
from kfp_finetune.components.transformers_train.tasks.settings import TaskSettings
from kfp_finetune.errors import Problem
from kfp_finetune.settings import STRICT, read_settings
from kfp_finetune.training.parts import HeldOut, Split

FULL_LEARNING_RATE, ADAPTER_LEARNING_RATE = 5e-5, 2e-4
"""Defaults: the one of transformers' TrainingArguments, and the one of peft's examples for LoRA."""

SHORTEST = 8
"""Tokens that a sequence may be cut to."""

ON_THE_FORM = frozenset(
    {
        "transformer_type", "num_labels", "epochs", "learning_rate", "batch_size", "gradient_accumulation_steps",
        "max_seq_len", "dtype", "strategy", "column_map", "split", "held_out", "num_workers", "num_procs_per_worker",
        "training_arguments", "lora_config",
    }
)  # fmt: skip
"""Settings that have a parameter of their own; the others go into the parameter `advanced`."""

TransformerType = Literal[
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForImageClassification",
]


@dataclass(frozen=True, config=STRICT)
class Settings:
    """How a model of transformers is trained.

    Args:
        transformer_type: The class of transformers that loads the model, which says what it is trained for.
        num_labels: How many labels the model is to tell apart; 0 for those of the rows to train on.
        epochs: Passes over the rows to train on.
        learning_rate: Peak of the schedule; 0 means 5e-5, and 2e-4 with LoRA.
        batch_size: Rows in a batch on each process.
        gradient_accumulation_steps: Batches before each update of the weights.
        max_seq_len: Longest sequence in tokens; 0 means 512, or as many as the model can read if fewer.
        dtype: "bf16" computes in bf16 with weights in fp32, "fp32" all in fp32.
        strategy: "ddp" has the whole model on each process, "fsdp" shares weights, gradients and optimizer out.
        column_map: The dataset's column for each of the task's keys, where it has another name.
        split: The rows to train on.
        held_out: The rows to evaluate on, never trained on.
        num_workers: Machines.
        num_procs_per_worker: Training processes on each.
        training_arguments: Any other of transformers' TrainingArguments, by name.
        lora_config: peft's LoraConfig by name: an adapter is trained and not the weights; empty for none.
        doc_stride: Tokens of a long context that one window shares with the next.
        max_answer_len: Tokens of the longest answer that evaluation reads from a context.
        mlm_probability: Share of a text's tokens that are masked.
        seed: Of new weights, the order of rows, dropout and masks.
        keep_last_n_checkpoints: Epochs that are kept; 0 for all.
        export_checkpoint: "last", or "best": of the epochs kept, the one with the best figure on the held-out rows.
    """

    transformer_type: TransformerType
    num_labels: Annotated[int, Field(ge=0, le=100_000)] = 0
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    learning_rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] = 1
    max_seq_len: Annotated[int, Field(ge=0, le=1_048_576)] = 0
    dtype: Literal["bf16", "fp32"] = "bf16"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    column_map: dict[str, str] = field(default_factory=dict)
    split: Split = "train"
    held_out: HeldOut = "5%"
    num_workers: Annotated[int, Field(ge=1, le=1024)] = 1
    num_procs_per_worker: Annotated[int, Field(ge=1, le=64)] = 1
    training_arguments: dict[str, Any] = field(default_factory=dict)
    lora_config: dict[str, Any] = field(default_factory=dict)
    doc_stride: Annotated[int, Field(ge=0)] = 128
    max_answer_len: Annotated[int, Field(ge=1)] = 30
    mlm_probability: Annotated[float, Field(ge=0.01, le=0.9)] = 0.15
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    keep_last_n_checkpoints: Annotated[int, Field(ge=0, le=1000)] = 0
    export_checkpoint: Literal["last", "best"] = "last"

    @field_validator("num_labels")
    @classmethod
    def _several(cls, value: int) -> int:
        if value == 1:
            raise ValueError("0, or at least 2 labels to tell apart")
        return value

    @field_validator("max_seq_len")
    @classmethod
    def _long_enough(cls, value: int) -> int:
        if 0 < value < SHORTEST:
            raise ValueError(f"0, or at least {SHORTEST} tokens")
        return value

    @property
    def method(self) -> str:
        """Which weights are trained: "full", "lora" or "dora"."""
        if not self.lora_config:
            return "full"
        return "dora" if self.lora_config.get("use_dora") else "lora"

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that is meant: the given one, or the method's default."""
        return self.learning_rate or (ADAPTER_LEARNING_RATE if self.lora_config else FULL_LEARNING_RATE)

    @property
    def world_size(self) -> int:
        """Processes of all machines together."""
        return self.num_workers * self.num_procs_per_worker

    @property
    def task(self) -> TaskSettings:
        """What the task needs of them."""
        return TaskSettings(
            column_map=dict(self.column_map),
            num_labels=self.num_labels or None,
            max_seq_len=self.max_seq_len,
            doc_stride=self.doc_stride,
            max_answer_len=self.max_answer_len,
            mlm_probability=self.mlm_probability,
            seed=self.seed,
        )

    def shaping(self) -> dict[str, Any]:
        """What shapes the result, in one form where there are several: the same values train the same model."""
        meant = {"learning_rate": self.peak_learning_rate, "num_procs_per_worker": self.world_size}
        return {name: value for name, value in (asdict(self) | meant).items() if name != "num_workers"}


def unfold_advanced(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Takes what is in `advanced` out of it.

    Args:
        values: The user's values by name; those of `advanced` are settings too.

    Returns:
        All values by name, and a problem for each of `advanced` that does not belong there.
    """
    known = Settings.__dataclass_fields__.keys() - ON_THE_FORM
    otherwise = "Take it out, or set it in training_arguments if it is one of TrainingArguments."
    return settings.unfold_advanced(values, known, ON_THE_FORM, otherwise)


def check_values(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with those of a user's values that are settings; others are left alone.

    Args:
        values: By name, with `advanced` as the user gave it.
    """
    values, problems = unfold_advanced(values)
    names = Settings.__dataclass_fields__.keys()
    return problems + read_settings(Settings, {name: value for name, value in values.items() if name in names})[1]
