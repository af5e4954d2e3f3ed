"""Fetches a model and checks that it can be loaded without running anything from outside."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp_finetune.errors import Problem, UserError
from kfp_finetune.fetch import Wanted, fetch
from kfp_finetune.lines import small_text
from kfp_finetune.manifests import Manifest
from kfp_finetune.pruning import prune
from kfp_finetune.reports.model import model_report
from kfp_finetune.sources.cards import CARD_BYTES, card_metadata, stated_text
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.s3_client import S3Options
from kfp_finetune.sources.source import Source, open_source
from kfp_finetune.workspace import FETCH_REPORT_NAME, INDEX_NAME, open_workspace

WANTED = Patterns(
    allow=("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md", "LICENSE*"),
    ignore=("*/*", "consolidated*.safetensors", "adapter_*"),
)
"""No pickles, nothing from subfolders, where repositories keep other formats of the same weights, nor the second copy
of them that some keep beside the first, nor an adapter, which transformers would put on the model."""

TOKENIZER_NAMES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")

IMAGE_PROCESSOR_NAME = "preprocessor_config.json"
"""What a model of pictures has in a tokenizer's place."""

WEIGHTS = (".safetensors", ".bin")
"""Endings of files of weights; .bin are there only if a user named them."""

SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "tie_word_embeddings",
)
"""What the report shows of config.json."""


def initialize_model(
    uri: str,
    workspace_root: str,
    *,
    allow_patterns: Sequence[str] = (),
    ignore_patterns: Sequence[str] = (),
    reuse: bool = True,
    keep: int = 0,
    s3: S3Options | None = None,
) -> Manifest:
    """Puts a model's configuration, weights and tokenizer, or image processor, on the volume.

    Args:
        uri: A directory, hf://ORGANISATION/NAME or s3://BUCKET/PREFIX; see `open_source`.
        workspace_root: Absolute path of the mounted volume.
        allow_patterns: Files to take instead of those of `WANTED`.
        ignore_patterns: Files to leave out instead of those of `WANTED`.
        reuse: Whether to take what is on the volume already; else it is fetched again, and what differs is mended.
        keep: How many revisions of this source to keep on the volume; 0 for all.
        s3: How S3 is reached.

    Returns:
        What was published; its facts hold the architecture, the dtypes, the number of parameters and the licence.

    Raises:
        UserError: If one of the three is missing, damaged or incomplete.
    """
    workspace = open_workspace(workspace_root)
    patterns = WANTED.changed(allow_patterns, ignore_patterns)
    source = open_source("model", uri, patterns, s3=s3)
    wanted = Wanted(
        kind="model",
        source=source,
        chosen={"patterns": [patterns.allow, patterns.ignore]},
        accept=lambda names: _check_names(uri, list(names)),
        check=lambda directory: _facts(directory, source),
    )
    manifest = fetch(workspace, wanted, workspace.model, reuse)
    prune(workspace, manifest, keep)
    return manifest


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
    if not any(name.endswith(WEIGHTS) for name in names):
        problems.append(
            Problem(
                "model",
                f"{uri} without weights",
                "*.safetensors (pickled .bin and .pt files are not taken unless allow_patterns names them)",
                "Save the model with transformers' save_pretrained, which writes safetensors.",
            )
        )
    if not any(name in names for name in (*TOKENIZER_NAMES, IMAGE_PROCESSOR_NAME)):
        problems.append(
            Problem(
                "model",
                f"{uri} without a tokenizer",
                f"one of {', '.join(TOKENIZER_NAMES)}, or {IMAGE_PROCESSOR_NAME} of a model of pictures",
                "Save the model's tokenizer or image processor into the same folder.",
            )
        )
    if problems:
        raise UserError(problems)


def _facts(directory: Path, source: Source) -> Mapping[str, Any]:
    rows = [("Revision", source.revision())]
    facts, page = describe_model(directory, source.uri, _license(directory), rows, source.files())
    (directory / FETCH_REPORT_NAME).write_text(page)
    return facts


def describe_model(
    directory: Path, name: str, licence: str, rows: Sequence[tuple[str, str]], files: Mapping[str, int]
) -> tuple[Mapping[str, Any], str]:
    """What a model is, from its configuration and the heads of its files.

    Args:
        directory: With the model's files.
        name: Of the model, for the page.
        licence: What is known of it; empty for nothing.
        rows: What else the page is to say of it, each a name with its value.
        files: Names and bytes.

    Returns:
        Facts for a manifest, and an HTML page.

    Raises:
        UserError: If the configuration or the weights are damaged or incomplete.
    """
    problems: list[Problem] = []
    config = _read_config(directory, problems)
    dtypes = _read_weights(directory, problems)
    if problems:
        raise UserError(problems)
    facts = {
        "model_type": config.get("model_type", "unknown"),
        "architecture": ", ".join(map(str, config.get("architectures") or [])),
        "license": licence,
        "dtypes": sorted(dtypes),
        "parameters": sum(dtypes.values()),
    }
    named = [("Family", facts["model_type"]), ("Architecture", facts["architecture"] or "not stated")]
    page = model_report(
        model=name,
        facts=[*named, ("Licence", licence or "not stated"), *rows],
        parameters=facts["parameters"],
        dtypes=dtypes,
        files=list(files.items()),
        config=[(key, str(config[key])) for key in SHAPE if key in config],
    )
    return facts, page


def _license(directory: Path) -> str:
    """What the head of README.md states, or nothing; the file goes, since it would be taken for the trained model's."""
    readme = directory / "README.md"
    text = ""
    if readme.exists():
        with readme.open("rb") as file:
            text = file.read(CARD_BYTES).decode(errors="replace")
    readme.unlink(missing_ok=True)
    stated = card_metadata(text)
    return stated_text(stated, "license_name") or stated_text(stated, "license")


def _read_config(directory: Path, problems: list[Problem]) -> dict[str, Any]:
    try:
        config = json.loads(small_text("model", directory / "config.json"))
    except ValueError as error:
        problems.append(
            Problem("model", f"a config.json that is not JSON: {error}", "valid JSON", "Fetch the file again.")
        )
        return {}
    if not isinstance(config, dict):
        problems.append(Problem("model", "a config.json that is no object", "an object", "Fetch the file again."))
        return {}
    return config


def _read_weights(directory: Path, problems: list[Problem]) -> Counter[str]:
    """The number of parameters of each dtype, from the heads of the files."""
    from safetensors import SafetensorError, safe_open

    dtypes: Counter[str] = Counter()
    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as weights:
                for name in weights.keys():  # noqa: SIM118  it is no mapping
                    tensor = weights.get_slice(name)
                    dtypes[tensor.get_dtype()] += math.prod(tensor.get_shape())
        except (SafetensorError, OSError) as error:
            problems.append(
                Problem("model", f"{path.name}, which is damaged: {error}", "whole files", "Fetch the file again.")
            )
    problems.extend(_missing_shards(directory))
    return dtypes


def _missing_shards(directory: Path) -> list[Problem]:
    index = directory / INDEX_NAME
    if not index.exists():
        return []
    try:
        named = {str(name) for name in json.loads(small_text("model", index))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [Problem("model", f"{INDEX_NAME} that cannot be read: {error!r}", "an index", "Fetch the file again.")]
    missing = sorted(named - {path.name for path in directory.glob("*.safetensors")})
    if not missing:
        return []
    return [
        Problem("model", f"weights without {', '.join(missing)}", "every file of the index", "Fetch the missing files.")
    ]
