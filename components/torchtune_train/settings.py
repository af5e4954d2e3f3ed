"""What a user can set, with its types and ranges; checked as a whole, without torch."""

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from kfp_finetune.errors import Problem

STRICT = ConfigDict(extra="forbid", strict=True)
FULL_LEARNING_RATE, ADAPTER_LEARNING_RATE = 2e-5, 3e-4
"""Defaults, as torchtune's own configs have them for full and LoRA fine-tuning."""
COLUMN_KEYS = frozenset({"input", "output", "instruction", "messages", "text"})
"""What a column can hold."""

T = TypeVar("T")


@dataclass(frozen=True, config=STRICT)
class DataSettings:
    """How rows become conversations.

    Args:
        dataset_type: "instruct" rows have a prompt and an answer (also Alpaca's instruction, input and output), "chat"
            rows a list of messages, "completion" rows plain text; "auto" says it by the columns.
        column_map: The columns that hold `input` and `output` (and `instruction`), `messages` or `text`, where they
            have other names.
        train_on_input: Whether the prompts' tokens count in the loss too.
        new_system_prompt: A system message put before every row that has none of its own; empty for none.
        split: The rows to train on: a split's name or a part of one, such as "train[:10%]".
        held_out: The rows to evaluate on, never trained on: a share of the split ("5%") or another split ("test").
    """

    dataset_type: Literal["auto", "instruct", "chat", "completion"] = "auto"
    column_map: dict[str, str] = field(default_factory=dict)
    train_on_input: bool = False
    new_system_prompt: str = ""
    split: Annotated[str, Field(pattern=r"^\w+(\[.*\])?$")] = "train"
    held_out: Annotated[str, Field(pattern=r"^(\d+(\.\d+)?%|[A-Za-z_]\w*(\[.*\])?)$")] = "5%"

    @field_validator("column_map")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        if not value.keys() <= COLUMN_KEYS:
            raise ValueError(f"an object with keys of {', '.join(sorted(COLUMN_KEYS))}, each naming a column")
        return value

    @field_validator("held_out")
    @classmethod
    def _leaves_rows(cls, value: str) -> str:
        if value.endswith("%") and not 0 < float(value[:-1]) <= 50:
            raise ValueError("a share above 0% and up to 50%, or a split's name")
        return value

    @property
    def held_out_share(self) -> float | None:
        """The share of the split's rows that is held out, or None if another split is."""
        return float(self.held_out[:-1]) / 100 if self.held_out.endswith("%") else None


@dataclass(frozen=True, config=STRICT)
class TrainSettings:
    """How the model is trained.

    Args:
        method: "full" trains every weight, "lora" a low-rank adapter beside them, "dora" an adapter and each row's
            magnitude, "qlora" an adapter beside weights in four bits.
        epochs: Passes over the training rows.
        learning_rate: Peak of the cosine schedule; 0 means 2e-5 for full and 3e-4 for adapters.
        batch_size: Rows in a batch on each process (GPU).
        gradient_accumulation_steps: Batches before each update of the weights.
        max_seq_len: Tokens after which a row is cut; 0 means 2048, or as many as the model can read if fewer.
        packed: Whether short rows are put into one sequence of `max_seq_len` tokens, each attending to itself alone.
        lora_rank: Rank of the adapter's matrices; its alpha is twice the rank unless overridden.
        dtype: "bf16" or "fp32", of weights, gradients and optimizer.
        num_procs_per_node: Training processes, one for each GPU.
        overrides: Any other key of torchtune's configuration, nested or dotted: {"optimizer.weight_decay": 0.1}.
    """

    method: Literal["full", "lora", "dora", "qlora"] = "lora"
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    learning_rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 2
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] = 1
    max_seq_len: Annotated[int, Field(ge=0, le=1_048_576)] = 0
    packed: bool = False
    lora_rank: Annotated[int, Field(ge=1, le=1024)] = 8
    dtype: Literal["bf16", "fp32"] = "bf16"
    num_procs_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that is meant: the given one, or the method's default."""
        return self.learning_rate or (ADAPTER_LEARNING_RATE if self.has_adapter else FULL_LEARNING_RATE)

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is trained and not the weights themselves."""
        return self.method != "full"

    @property
    def quantizes_base(self) -> bool:
        """Whether the weights beside the adapter are in four bits."""
        return self.method == "qlora"


def read_settings(kind: Callable[..., T], values: Mapping[str, Any]) -> tuple[T | None, list[Problem]]:
    """Builds settings from what a user gave.

    Args:
        kind: `DataSettings` or `TrainSettings`.
        values: The user's values by name.

    Returns:
        The settings and no problem, or None and every problem.
    """
    try:
        return kind(**values), []
    except ValidationError as error:
        return None, [_problem(details) for details in error.errors()]


def _problem(details: Mapping[str, Any]) -> Problem:
    name = ".".join(str(part) for part in details["loc"])
    allowed = re.sub(r"^(Input should be|Value error,|String should match pattern) ?", "", details["msg"])
    return Problem(name, repr(details["input"]), allowed, f"Correct {name} and run again.")


def check_values(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with those of a user's values that are settings; others are left alone.

    Args:
        values: By name.
    """
    problems: list[Problem] = []
    for kind in (DataSettings, TrainSettings):
        names = kind.__dataclass_fields__.keys()
        problems += read_settings(kind, {name: value for name, value in values.items() if name in names})[1]
    return problems
