"""Everything that can be wrong with a training on preferences before its rows are read, all of it in one message."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from kfp_finetune.components.plan_preferences.settings import (
    LEARNING_RATES,
    METHODS,
    PairSettings,
    PreferenceSettings,
    check_method,
    check_overrides,
    check_smoothing,
    unfold_advanced,
)
from kfp_finetune.components.torchtune_train.check import ModelRequest, check_training
from kfp_finetune.manifests import Manifest
from kfp_finetune.settings import read_settings
from kfp_finetune.workspace import Workspace

FORMAT = 1
"""Raised by hand when the same settings would train differently than before; part of every training's key."""


@dataclass(frozen=True)
class PreferenceRequest(ModelRequest):
    """A training on preferences.

    Args:
        data: How rows become pairs.
        preference: What a pair teaches.
    """

    data: PairSettings
    preference: PreferenceSettings

    @property
    def shaping(self) -> Mapping[str, Any]:
        """Every setting that shapes the result, and the number of the format in which they are read."""
        own = {"data": asdict(self.data), "preference": self.preference.to_dict()}
        return {"preferences": FORMAT, **own, "train": self.train.shaping()}


def check_request(
    dataset: Manifest, model: Manifest, name: str, values: Mapping[str, Any], workspace: Workspace
) -> PreferenceRequest:
    """Checks what a user asks for.

    Args:
        dataset: Of the published dataset.
        model: Of the published model.
        name: The series that the export will belong to.
        values: For `PairSettings`, `PreferenceSettings`, `TrainSettings` and `advanced`, by name.
        workspace: The tree on the volume.

    Raises:
        UserError: With everything that is wrong.
    """
    values, problems = unfold_advanced(values)
    if wrong := check_method(values):
        values, problems = {**values, "method": METHODS[0]}, problems + wrong
    data, of_data = read_settings(PairSettings, _take(values, PairSettings))
    preference, of_preference = read_settings(PreferenceSettings, _take(values, PreferenceSettings))
    problems += [*of_data, *of_preference, *check_smoothing(values), *check_overrides(values.get("overrides", {}))]
    others = values.keys() - PairSettings.__dataclass_fields__.keys() - PreferenceSettings.__dataclass_fields__.keys()
    train, architecture = check_training(model, name, {key: values[key] for key in others}, workspace, problems)
    assert data is not None and preference is not None
    rate = train.learning_rate or LEARNING_RATES[train.method]
    return PreferenceRequest(dataset, model, replace(train, learning_rate=rate), architecture, data, preference)


def _take(values: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in kind.__dataclass_fields__}
