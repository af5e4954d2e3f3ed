"""A sweep and its trials, as they lie on the volume and travel between steps."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kfp_finetune.components.sweep.aim import Aim
from kfp_finetune.training.plan import Plan
from kfp_finetune.workspace import content_key

SWEEP_NAME = "sweep.json"
"""What was planned, in the sweep's folder."""

COMPARISON_NAME = "comparison.json"
"""What came of it, beside it; only once a trial was chosen."""


@dataclass(frozen=True)
class Trial:
    """One of a sweep's trainings.

    Args:
        number: From 1.
        values: Of the settings that vary.
        plan: The training.
        sweep: The sweep's key.
        summary: The training's figures as a line, if it was finished when the sweep was planned.
    """

    number: int
    values: Mapping[str, Any]
    plan: Plan
    sweep: str = ""
    summary: str = ""

    @property
    def title(self) -> str:
        """Its number and its values, for a log."""
        return f"trial {self.number} ({describe(self.values)})"

    def to_json(self) -> str:
        """The trial as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Trial":
        """Reads what `to_json` wrote."""
        return _trial(json.loads(text))


@dataclass(frozen=True)
class Sweep:
    """Trainings of one model on one dataset, of which the best is to be exported.

    Args:
        key: Made from the trainings' keys.
        name: The series.
        aim: What they are compared by.
        trials: The trainings, none twice.
        evaluation: Tasks that the best is evaluated on.
    """

    key: str
    name: str
    aim: Aim
    trials: Sequence[Trial]
    evaluation: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """The settings that vary."""
        return list(self.trials[0].values)

    def to_json(self) -> str:
        """The sweep as indented JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Sweep":
        """Reads what `to_json` wrote."""
        values = json.loads(text)
        aim, trials = Aim(**values.pop("aim")), [_trial(trial) for trial in values.pop("trials")]
        return cls(**values, aim=aim, trials=trials)


def _trial(values: Mapping[str, Any]) -> Trial:
    return Trial(**{**values, "plan": Plan(**values["plan"])})


def sweep_key(trainings: Sequence[str]) -> str:
    """A sweep's name: equal for the same trainings, in whatever order.

    Args:
        trainings: Their keys.
    """
    return content_key({"trainings": sorted(trainings)})


def read_sweep(folder: Path) -> Sweep:
    """The sweep in a folder.

    Args:
        folder: From `Workspace.sweep`.
    """
    return Sweep.from_json((folder / SWEEP_NAME).read_text())


def describe(values: Mapping[str, Any]) -> str:
    """Values as a short text: "learning_rate 0.0003, lora_rank 8"."""
    return ", ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()
    )
