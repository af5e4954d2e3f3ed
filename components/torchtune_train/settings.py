"""What a user can set, with its types and ranges; checked as a whole, without torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, field, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from kfp_finetune import settings
from kfp_finetune.errors import Problem
from kfp_finetune.settings import STRICT, read_settings
from kfp_finetune.training.parts import HeldOut, Split
from kfp_finetune.training.plan import CHECKPOINT_MINUTES, IN_FOUR_BITS

FULL_LEARNING_RATE, ADAPTER_LEARNING_RATE = 2e-5, 3e-4
"""Defaults, as torchtune's own configs have them for full and LoRA fine-tuning, with 2 rows in a batch."""
LARGEST_FULL_LEARNING_RATE = 4e-5
"""With more rows in an update the default for full fine-tuning rises as their square root, up to this."""
MOST_ROWS, FEWEST_UPDATES = 8, 100
"""Rows that each process reads for an update by default; fewer where there would be fewer updates than these."""
COLUMN_KEYS = frozenset({"input", "output", "instruction", "messages", "text", "tools"})
"""What a column can hold."""

AttentionModule = Literal["q_proj", "k_proj", "v_proj", "output_proj"]
"""torchtune's names of the attention's matrices."""

ON_THE_FORM = frozenset(
    {
        "method", "epochs", "learning_rate", "batch_size", "gradient_accumulation_steps", "max_seq_len", "packed",
        "lora_rank", "dtype", "num_procs_per_node", "num_nodes", "overrides",
    }
)  # fmt: skip
"""Settings of a training that have a parameter of their own; the others go into the parameter `advanced`."""


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
    split: Split = "train"
    held_out: HeldOut = "5%"

    @field_validator("column_map")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        if not value.keys() <= COLUMN_KEYS:
            raise ValueError(f"an object with keys of {', '.join(sorted(COLUMN_KEYS))}, each naming a column")
        return value


@dataclass(frozen=True, config=STRICT)
class TrainSettings:
    """How the model is trained.

    Args:
        method: "full" trains every weight, "lora" a low-rank adapter beside them, "dora" an adapter and each row's
            magnitude, "qlora" and "qdora" the same beside weights in four bits.
        epochs: Passes over the training rows.
        learning_rate: Peak of the schedule; 0 means 3e-4 for adapters and, for full, 2e-5 with up to two rows in an
            update, rising as the square root of their number to 4e-5.
        batch_size: Rows in a batch on each process (GPU); 0 means 8, or fewer where that leaves less than 100 updates.
            They are read at once if memory allows it, else in smaller batches that are accumulated.
        gradient_accumulation_steps: Batches before each update of the weights.
        max_seq_len: Tokens after which a row is cut; 0 means 2048, or as many as the model can read if fewer.
        packed: Whether short rows are put into one sequence of `max_seq_len` tokens, each attending to itself alone.
        dtype: "bf16" or "fp32", of weights, gradients and optimizer.
        num_procs_per_node: Training processes on each machine, one for each GPU.
        num_nodes: Machines.
        lora_rank: Rank of the adapter's matrices.
        lora_alpha: Weight of the adapter is alpha / rank; 0 means twice the rank.
        lora_dropout: Share of the adapter's inputs that is left out at random.
        lora_attn_modules: The attention's matrices that have an adapter.
        apply_lora_to_mlp: Whether the MLP's matrices have one.
        apply_lora_to_output: Whether the output layer has one; not where it is the embeddings.
        optimizer: "adamw", or "adamw_8bit" whose state is held in eight bits.
        weight_decay: AdamW's.
        lr_scheduler: How the learning rate falls after the warm-up: "cosine", "linear" or "constant".
        warmup_ratio: Share of the steps in which the learning rate rises to its peak.
        clip_grad_norm: Largest norm of the gradient; 0 for no limit.
        max_steps_per_epoch: Updates of the weights after which an epoch ends; 0 for all rows.
        seed: Of the order of rows, the adapter's first values and dropout.
        compile: Whether the model is compiled by torch, which takes a minute and speeds up long trainings.
        enable_activation_checkpointing: Whether activations are computed again in the backward pass: slower, but for
            less memory; none means only if memory asks for it.
        enable_activation_offloading: Whether they wait in the CPU's memory; needs the former, and a GPU.
        fsdp_cpu_offload: Whether weights and optimizer rest in the CPU's memory; without effect on a CPU.
        num_output_chunks: Parts in which logits and loss are computed, so that they take less memory.
        tensor_parallel_dim: Processes that share each matrix; for full fine-tuning of Llama models.
        quantization_aware: "int8" or "int4" to train with weights rounded as the export's quantised copy will have
            them, so that it loses less; for full fine-tuning. Empty for exact ones.
        keep_last_n_checkpoints: Epochs that are kept; 0 for all.
        checkpoint_minutes: Between the checkpoints inside an epoch, made less often where they are dear; 0 for none but
            the epochs'.
        export_checkpoint: "last", or "best": of the epochs kept, the one with the least loss on the held-out rows.
        metric_loggers: Where the figures of each step go too: {"tensorboard": {}, "mlflow": {...}, "wandb": {...}}.
        overrides: Any other key of torchtune's configuration, nested or dotted: {"optimizer.betas": [0.9, 0.95]}.
    """

    method: Literal["full", "lora", "dora", "qlora", "qdora"] = "lora"
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    learning_rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    batch_size: Annotated[int, Field(ge=0, le=4096)] = 0
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] = 1
    max_seq_len: Annotated[int, Field(ge=0, le=1_048_576)] = 0
    packed: bool = False
    dtype: Literal["bf16", "fp32"] = "bf16"
    num_procs_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    num_nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    lora_rank: Annotated[int, Field(ge=1, le=1024)] = 8
    lora_alpha: Annotated[float, Field(ge=0, le=65_536, allow_inf_nan=False)] = 0.0
    lora_dropout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    lora_attn_modules: Annotated[list[AttentionModule], Field(min_length=1)] = field(
        default_factory=lambda: list(get_args(AttentionModule))
    )
    apply_lora_to_mlp: bool = True
    apply_lora_to_output: bool = False
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.01
    lr_scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.03
    clip_grad_norm: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 1.0
    max_steps_per_epoch: Annotated[int, Field(ge=0, le=10**9)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    compile: bool = False
    enable_activation_checkpointing: bool | None = None
    enable_activation_offloading: bool = False
    fsdp_cpu_offload: bool = False
    num_output_chunks: Annotated[int, Field(ge=1, le=256)] = 8
    tensor_parallel_dim: Annotated[int, Field(ge=1, le=64)] = 1
    quantization_aware: Literal["", "int8", "int4"] = ""
    keep_last_n_checkpoints: Annotated[int, Field(ge=0, le=1000)] = 0
    checkpoint_minutes: Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)] = CHECKPOINT_MINUTES
    export_checkpoint: Literal["last", "best"] = "last"
    metric_loggers: dict[str, dict[str, Any]] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)

    @field_validator("lora_attn_modules")
    @classmethod
    def _no_module_twice(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("each module once")
        return value

    @property
    def rows_a_step(self) -> int:
        """Rows that each process reads for an update of the weights; 0 while `batch_size` is."""
        return self.batch_size * self.gradient_accumulation_steps

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that is meant: the given one, or the method's default for this many rows in an update.

        It rises as the square root of the batch, as is usual for Adam (Malladi et al., 2022, On the SDEs and Scaling
        Rules for Adaptive Gradient Algorithms).
        """
        if self.learning_rate or self.has_adapter:
            return self.learning_rate or ADAPTER_LEARNING_RATE
        rows = max(2, self.rows_a_step * self.data_parallel_dim)
        return min(FULL_LEARNING_RATE * math.sqrt(rows / 2), LARGEST_FULL_LEARNING_RATE)

    def settled(self, rows: int) -> "TrainSettings":
        """These settings with the number of rows in a batch that is meant.

        Args:
            rows: Rows to train on, or sequences of them if they are packed.
        """
        if self.batch_size:
            return self
        accumulated = self.data_parallel_dim * self.gradient_accumulation_steps
        most = rows * self.epochs // (FEWEST_UPDATES * accumulated)
        return replace(self, batch_size=max(1, min(MOST_ROWS, most)))

    @property
    def alpha(self) -> float:
        """The adapter's alpha that is meant: the given one, or twice the rank."""
        return self.lora_alpha or 2 * self.lora_rank

    def shaping(self) -> dict[str, Any]:
        """What shapes the result, in one form where there are several: the same values train the same model."""
        meant = {
            # With a batch size that follows from the rows, so does the default for full fine-tuning.
            "learning_rate": self.peak_learning_rate if self.batch_size or self.has_adapter else self.learning_rate,
            "lora_alpha": self.alpha,
            "lora_attn_modules": sorted(set(self.lora_attn_modules)),
            "num_procs_per_node": self.world_size,
        }
        idle = {"num_nodes", "checkpoint_minutes"}
        if not self.quantization_aware:
            idle.add("quantization_aware")
        if not self.has_adapter:
            idle |= {name for name in self.__dataclass_fields__ if "lora_" in name}
        return {name: value for name, value in (asdict(self) | meant).items() if name not in idle}

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is trained and not the weights themselves."""
        return self.method != "full"

    @property
    def has_magnitudes(self) -> bool:
        """Whether each row's magnitude is trained too."""
        return self.method in ("dora", "qdora")

    @property
    def quantizes_base(self) -> bool:
        """Whether the weights beside the adapter are in four bits."""
        return self.method in IN_FOUR_BITS

    @property
    def world_size(self) -> int:
        """Processes of all machines together."""
        return self.num_nodes * self.num_procs_per_node

    @property
    def data_parallel_dim(self) -> int:
        """How many groups of processes read rows of their own."""
        return self.world_size // self.tensor_parallel_dim


def runs_without_fsdp(method: str, num_procs: int) -> bool:
    """Whether a training runs torchtune's single-device recipe.

    FSDP of torch 2.13 cannot gather torchao 0.15's four-bit weights with one process, which needs no FSDP either.

    Args:
        method: See `TrainSettings`.
        num_procs: Processes of all nodes.
    """
    return method in IN_FOUR_BITS and num_procs == 1


def unfold_advanced(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Takes what is in `advanced` out of it.

    Args:
        values: The user's values by name; those of `advanced` are settings too.

    Returns:
        All values by name, and a problem for each of `advanced` that does not belong there.
    """
    known = TrainSettings.__dataclass_fields__.keys() - ON_THE_FORM
    own = ON_THE_FORM | DataSettings.__dataclass_fields__.keys()
    return settings.unfold_advanced(values, known, own, "Take it out, or set it in overrides if it is torchtune's.")


def check_values(values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with those of a user's values that are settings; others are left alone.

    Args:
        values: By name, with `advanced` as the user gave it.
    """
    values, problems = unfold_advanced(values)
    for kind in (DataSettings, TrainSettings):
        names = kind.__dataclass_fields__.keys()
        problems += read_settings(kind, {name: value for name, value in values.items() if name in names})[1]
    return problems
