"""Everything that can be wrong with a training before its rows are read, all of it in one message."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kfp_finetune.components.transformers_train.arguments import check_arguments
from kfp_finetune.components.transformers_train.lora import check_lora
from kfp_finetune.components.transformers_train.settings import Settings, unfold_advanced
from kfp_finetune.components.transformers_train.tasks.models import check_model
from kfp_finetune.components.transformers_train.tasks.table import TASKS
from kfp_finetune.components.transformers_train.tasks.task import Task
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.manifests import Manifest
from kfp_finetune.settings import read_partly
from kfp_finetune.training import request as training
from kfp_finetune.workspace import Workspace, check_series_name

FORMAT = 1
"""Raised by hand when the same settings would train differently than before; part of every training's key."""

LONGEST_BY_DEFAULT = 512
"""Tokens of a row where the user sets no limit and the model can read more."""

DTYPES = ("float32", "bfloat16", "float16")
"""Of a model's files."""

AFTER_PADDING = frozenset(
    {"camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet",
     "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}
)  # fmt: skip
"""Kinds of models whose first position is that behind the padding token's number, so that they read fewer tokens than
`max_position_embeddings` says."""


@dataclass(frozen=True)
class Request(training.Request):
    """A training with transformers.

    Args:
        settings: How the model is trained.
        config: The model's config.json.
    """

    settings: Settings
    config: Mapping[str, Any]

    @property
    def shaping(self) -> Mapping[str, Any]:
        """Every setting that shapes the result, and the number of the format in which they are read."""
        return {"trainer": "transformers", "format": FORMAT, "settings": self.settings.shaping()}

    @property
    def task(self) -> Task:
        """What is peculiar to the transformer type."""
        return TASKS[self.settings.transformer_type]


def check_request(
    dataset: Manifest, model: Manifest, name: str, values: Mapping[str, Any], workspace: Workspace
) -> Request:
    """Checks what a user asks for.

    Args:
        dataset: Of the published dataset.
        model: Of the published model.
        name: The series that the export will belong to.
        values: For `Settings` and `advanced`, by name.
        workspace: The tree on the volume.

    Raises:
        UserError: With everything that is wrong.
    """
    values, problems = unfold_advanced(values)
    settings, found = read_partly(Settings, values)
    problems += found
    try:
        check_series_name(name)
    except UserError as error:
        problems += error.problems
    folder = workspace.root / model.path
    config = json.loads((folder / "config.json").read_text())
    if settings is None:
        raise UserError(problems)
    problems += check_arguments(settings.training_arguments, settings.transformer_type, settings.peak_learning_rate)
    misfit = check_model(settings.transformer_type, config)
    problems += [misfit] if misfit else _check_files(folder, config) or _check_together(settings, folder, config)
    if problems:
        raise UserError(problems)
    if settings.max_seq_len == 0:
        settings = replace(settings, max_seq_len=min(LONGEST_BY_DEFAULT, _longest(config) or LONGEST_BY_DEFAULT))
    return Request(dataset, model, settings, config)


def _check_files(folder: Path, config: Mapping[str, Any]) -> list[Problem]:
    """What of a model's files cannot be trained, or would be taken for what it is not."""
    problems = []
    if config.get("quantization_config"):
        allowed = "a model whose weights are numbers of 16 or 32 bits"
        problems.append(Problem("model", "a config.json with quantization_config", allowed, "Take its base model."))
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    if dtype not in DTYPES:
        mend = "Correct dtype in config.json."
        problems.append(Problem("model", f"a config.json with dtype {dtype!r}", ", ".join(DTYPES), mend))
    if (folder / "adapter_config.json").exists():
        given = "a folder with both a model and an adapter, which transformers would put on it"
        mend = "Move adapter_config.json and adapter_model.safetensors to a folder of their own."
        problems.append(Problem("model", given, "a model alone", mend))
    return problems


def _check_together(settings: Settings, folder: Path, config: Mapping[str, Any]) -> list[Problem]:
    problems = check_lora(settings.lora_config, settings.transformer_type, folder)
    longest = _longest(config)
    if longest and settings.max_seq_len > longest and TASKS[settings.transformer_type].processor != "image processor":
        allowed = f"at most {longest}, the longest sequence of this model"
        problems.append(
            Problem("max_seq_len", str(settings.max_seq_len), allowed, f"Set max_seq_len to {longest} or less.")
        )
    return problems


def _longest(config: Mapping[str, Any]) -> int:
    """Tokens of the longest sequence that a model can read; 0 if it has no such bound."""
    positions = next((config[name] for name in ("max_position_embeddings", "n_positions") if config.get(name)), 0)
    if config.get("model_type") in AFTER_PADDING:
        return int(positions) - int(config.get("pad_token_id") or 0) - 1
    return int(positions)
