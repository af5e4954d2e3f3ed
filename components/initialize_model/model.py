"""Fetches a model and checks that it can be loaded without running anything from outside."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp_finetune.errors import Problem, UserError
from kfp_finetune.fetch import fetch
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.source import open_source
from kfp_finetune.workspace import INDEX_NAME, Manifest, open_workspace

WANTED = Patterns(allow=("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"), ignore=("*/*",))
"""No pickles, and nothing from subfolders, where repositories keep other formats of the same weights."""

TOKENIZER_NAMES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def initialize_model(uri: str, workspace_root: str) -> Manifest:
    """Puts a model's configuration, weights and tokenizer on the volume.

    Args:
        uri: A directory with config.json, safetensors weights and a tokenizer.
        workspace_root: Absolute path of the mounted volume.

    Returns:
        What was published; its facts hold the architecture, the dtypes and the number of parameters.

    Raises:
        UserError: If one of the three is missing, damaged or incomplete.
    """
    workspace = open_workspace(workspace_root)
    source = open_source("model", uri, WANTED)
    _check_names(uri, source.paths())
    return fetch(workspace, "model", workspace.model, source, WANTED, _facts)


def _check_names(uri: str, names: Sequence[str]) -> None:
    problems = []
    if "config.json" not in names:
        problems.append(
            Problem(
                "model",
                f"{uri} without config.json",
                "a directory in the Hugging Face format",
                "Give the model's folder.",
            )
        )
    if not any(name.endswith(".safetensors") for name in names):
        problems.append(
            Problem(
                "model",
                f"{uri} without weights",
                "*.safetensors (pickled .bin and .pt files are never loaded)",
                "Save the model with transformers' save_pretrained, which writes safetensors.",
            )
        )
    if not any(name in names for name in TOKENIZER_NAMES):
        problems.append(
            Problem(
                "model",
                f"{uri} without a tokenizer",
                f"one of {', '.join(TOKENIZER_NAMES)}",
                "Save the model's tokenizer into the same folder.",
            )
        )
    if problems:
        raise UserError(problems)


def _facts(directory: Path) -> Mapping[str, Any]:
    problems: list[Problem] = []
    config = _read_config(directory, problems)
    dtypes, parameters = _read_weights(directory, problems)
    if problems:
        raise UserError(problems)
    return {"model_type": config.get("model_type", "unknown"), "dtypes": sorted(dtypes), "parameters": parameters}


def _read_config(directory: Path, problems: list[Problem]) -> dict[str, Any]:
    try:
        config = json.loads((directory / "config.json").read_text())
    except ValueError as error:
        problems.append(
            Problem("model", f"a config.json that is not JSON: {error}", "valid JSON", "Fetch the file again.")
        )
        return {}
    if not isinstance(config, dict):
        problems.append(Problem("model", "a config.json that is no object", "an object", "Fetch the file again."))
        return {}
    return config


def _read_weights(directory: Path, problems: list[Problem]) -> tuple[set[str], int]:
    from safetensors import SafetensorError, safe_open

    dtypes: set[str] = set()
    parameters = 0
    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as weights:
                for name in weights.keys():  # noqa: SIM118  it is no mapping
                    tensor = weights.get_slice(name)
                    dtypes.add(tensor.get_dtype())
                    size = 1
                    for length in tensor.get_shape():
                        size *= length
                    parameters += size
        except (SafetensorError, OSError) as error:
            problems.append(
                Problem("model", f"{path.name}, which is damaged: {error}", "whole files", "Fetch the file again.")
            )
    problems.extend(_missing_shards(directory))
    return dtypes, parameters


def _missing_shards(directory: Path) -> list[Problem]:
    index = directory / INDEX_NAME
    if not index.exists():
        return []
    try:
        named = {str(name) for name in json.loads(index.read_text())["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [Problem("model", f"{INDEX_NAME} that cannot be read: {error!r}", "an index", "Fetch the file again.")]
    missing = sorted(named - {path.name for path in directory.glob("*.safetensors")})
    if not missing:
        return []
    return [
        Problem("model", f"weights without {', '.join(missing)}", "every file of the index", "Fetch the missing files.")
    ]
