"""What is asked of an export, looked at before anything is trained."""

from pathlib import Path
from typing import Any

from kfp_finetune.errors import Problem
from kfp_finetune.manifests import Manifest
from kfp_finetune.training.exporting import ExportSettings, check_export, read_export_settings
from kfp_finetune.training.plan import CAUSAL_LM


def plan_export(
    given: Any, model: Manifest, workspace_root: str, transformer_type: str = CAUSAL_LM
) -> tuple[ExportSettings, list[Problem]]:
    """The settings of an export, and everything that is wrong with them for a model.

    Args:
        given: The value of the parameter `export`.
        model: Of the model that training begins with.
        workspace_root: Absolute path of the mounted volume.
        transformer_type: The class of transformers that loads the model.
    """
    settings, _ = read_export_settings(given)
    problems = check_export(given, transformer_type)
    if settings.quantize and not problems:
        from kfp_finetune.components.export_model.quantized import check_model

        problems = check_model(Path(workspace_root) / model.path, settings.quantize)
    return settings, problems
