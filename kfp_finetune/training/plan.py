"""A planned training, as one JSON file that the next steps need alone."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kfp_finetune.errors import refuse

PLAN_NAME = "plan.json"

DATA_REPORT_NAME = "data.html"
"""The page on a training's rows, beside its plan."""

DATA_NAME, SETTINGS_NAME = "data.json", "settings.json"
"""What that page shows, for programs, and the user's settings as they were understood, by name."""

TORCHTUNE, TRANSFORMERS = "torchtune", "transformers"
"""What trains."""

CAUSAL_LM = "AutoModelForCausalLM"
"""The class of transformers that loads what torchtune trains."""

CHECKPOINT_MINUTES = 10.0
"""Between the checkpoints inside an epoch, where the user says nothing else."""

IN_FOUR_BITS = frozenset({"qlora", "qdora"})
"""Methods that hold the base's weights in four bits."""


@dataclass(frozen=True)
class Plan:
    """A training, described so that the next steps need nothing else.

    Args:
        key: Made from dataset, model and every setting that shapes the result.
        training: The training's directory, relative to the workspace.
        model: The base model's directory, relative to the workspace.
        base: The base model as the user named it.
        dataset: The dataset as the user named it.
        method: "full", "lora", "dora", "qlora" or "qdora".
        epochs: Passes over the training rows.
        num_procs_per_node: Training processes on each machine.
        num_nodes: Machines.
        dtype: Of the weights that are written: "bf16" or "fp32".
        total_steps: Updates of the weights.
        lora_scale: alpha / rank of the adapter; 0 for full.
        export_checkpoint: "last" or "best".
        has_chat_template: Whether the base model has one; else `chat.DEFAULT_CHAT_TEMPLATE` was used.
        train: What became of the training rows; see `TokenCounts`. Empty if the training's directory is gone.
        held_out: The same for the held-out rows.
        work: Made from all that the key is made from but the model.
        origin: Address of the model that the series began with.
        license: Of that model, as it was stated.
        transformer_type: The class of transformers that loads the model.
        trainer: What trains: "torchtune" or "transformers".
        dataset_revision: The dataset's, as exactly as its source said it.
        evaluation: Tasks that this run evaluates the model on, and where their data lies; empty for none.
        expected: What it is expected to need of a GPU, as `Forecast.to_dict` gives it; empty if that is not known.
        checkpoint_minutes: Between the checkpoints inside an epoch; 0 for none but the epochs'. For torchtune alone.
        preference: For rows that are pairs of answers, the loss and its figures; empty for others.
        quantization_aware: "int8" or "int4" if the model learned with weights rounded to so few bits; else empty.
        distillation: If a second model is the teacher, its address and the weight of what it says; else empty.
    """

    key: str
    training: str
    model: str
    base: str
    dataset: str
    method: str
    epochs: int
    num_procs_per_node: int
    num_nodes: int
    dtype: str
    total_steps: int
    lora_scale: float
    export_checkpoint: str
    has_chat_template: bool
    train: Mapping[str, int]
    held_out: Mapping[str, int]
    work: str = ""
    origin: str = ""
    license: str = ""
    transformer_type: str = CAUSAL_LM
    trainer: str = TORCHTUNE
    dataset_revision: str = ""
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Any] = field(default_factory=dict)
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    preference: Mapping[str, Any] = field(default_factory=dict)
    quantization_aware: str = ""
    distillation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def quantizes_base(self) -> bool:
        """Whether training held the base's weights in four bits."""
        return self.method in IN_FOUR_BITS

    @property
    def learns(self) -> str:
        """What is learned beside the rows' own answers, for a reader; empty if nothing is."""
        words = []
        if self.preference:
            words.append(f"preferences: {self.preference['loss']}, beta {self.preference['beta']:g}")
            if smoothing := self.preference["label_smoothing"]:
                words.append(f"label smoothing {smoothing:g}")
        if self.distillation:
            words.append(f"from the teacher {self.distillation['teacher']}, kd_ratio {self.distillation['kd_ratio']:g}")
        if self.quantization_aware:
            words.append(f"with weights rounded to {self.quantization_aware}; all figures are of the rounded model")
        return ", ".join(words)

    def to_json(self) -> str:
        """The plan as indented JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Reads what `to_json` wrote."""
        return cls(**json.loads(text))


def read_plan(training: Path) -> Plan:
    """The plan in a training's folder.

    Args:
        training: The folder.

    Raises:
        UserError: If there is none.
    """
    try:
        return Plan.from_json((training / PLAN_NAME).read_text())
    except FileNotFoundError as error:
        raise refuse(
            "volume",
            f"one without {training}",
            "the one on which the step plan wrote this training",
            "Give the training the same volume as the steps before it.",
        ) from error
