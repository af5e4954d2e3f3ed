"""What a user can set of a task, with its types and ranges; checked without torch."""

from dataclasses import field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from kfp_finetune.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class TaskSettings:
    """How rows become what a model reads.

    Args:
        column_map: The dataset's column for each of the task's keys, where it has another name.
        num_labels: How many labels the model is to tell apart; default: those of the rows to train on.
        max_seq_len: Longest sequence in tokens.
        doc_stride: Tokens of a long context that one window shares with the next.
        max_answer_len: Tokens of the longest answer that evaluation reads from a context.
        mlm_probability: Share of a text's tokens that are masked.
        seed: Of the masks of held-out rows, which are the same in every evaluation.
    """

    column_map: dict[str, str] = field(default_factory=dict)
    num_labels: Annotated[int, Field(ge=2, le=100_000)] | None = None
    max_seq_len: Annotated[int, Field(ge=8)] = 512
    doc_stride: Annotated[int, Field(ge=0)] = 128
    max_answer_len: Annotated[int, Field(ge=1)] = 30
    mlm_probability: Annotated[float, Field(ge=0.01, le=0.9)] = 0.15
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
