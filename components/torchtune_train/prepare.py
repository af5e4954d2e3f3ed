"""What a training reads, written once: rows as tokens, a few prompts, and the whole configuration."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from kfp_finetune.chat import DEFAULT_CHAT_TEMPLATE, load_tokenizer
from kfp_finetune.components.torchtune_train.check import ModelRequest, Request
from kfp_finetune.components.torchtune_train.config import Steps, build_config, count_steps, write_config
from kfp_finetune.components.torchtune_train.families import Architecture
from kfp_finetune.components.torchtune_train.fits import Fit, possible_fits, write_fits
from kfp_finetune.components.torchtune_train.forecast import Needs, forecast
from kfp_finetune.components.torchtune_train.memory import footprint
from kfp_finetune.components.torchtune_train.overrides import apply_overrides
from kfp_finetune.components.torchtune_train.packing import pack_rows, row_lengths
from kfp_finetune.components.torchtune_train.parts import open_parts
from kfp_finetune.components.torchtune_train.sampler import order_rows
from kfp_finetune.components.torchtune_train.samples import samples
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.components.torchtune_train.tokens import TokenCounts, tokenize
from kfp_finetune.errors import refuse
from kfp_finetune.manifests import Manifest
from kfp_finetune.training.forecast import Forecast
from kfp_finetune.workspace import Workspace

SAMPLES_NAME = "samples.json"
TOKENS_FOLDER = "tokens"
SAMPLES = 3

Change = Callable[[dict[str, Any]], dict[str, Any]]
"""Gives a configuration that is written, before the user's overrides, from that of `build_config`."""


@dataclass(frozen=True)
class Rows:
    """The rows of a training as it reads them.

    Args:
        tokens: Folder with those to train on and those held out.
        kind: Of the rows: "instruct", "chat" or "completion".
        train: Of the rows to train on.
        held_out: Of the rows held out.
        lengths: Of each row to train on, in tokens, before cutting.
        prompts: A few of the held-out rows, for answers.
        has_chat_template: Whether the base model has one; else `chat.DEFAULT_CHAT_TEMPLATE` was used.
    """

    tokens: Path
    kind: str
    train: TokenCounts
    held_out: TokenCounts
    lengths: Sequence[int]
    prompts: Sequence[Mapping[str, Any]]
    has_chat_template: bool


@dataclass(frozen=True)
class Prepared:
    """What became of a training's rows.

    Args:
        settings: The training's, with the batch size that follows from the rows.
        rows: As they are read.
        steps: How many updates of the weights there will be.
        expected: What the training will need of a GPU.
    """

    settings: TrainSettings
    rows: Rows
    steps: Steps
    expected: Forecast


def prepare(
    request: Request, workspace: Workspace, staging: Path, same: Rows | None = None, change: Change = dict
) -> Prepared:
    """Writes tokens, prompts and configuration.

    Args:
        request: The training.
        workspace: The tree on the volume.
        staging: The directory that becomes the training's.
        same: Rows of another training, if they are read the same way. Default: they are read from the dataset.
        change: Of the configuration; see `configure`.

    Raises:
        UserError: If a row does not fit, or there are too few.
    """
    train, tokens = request.train, staging / TOKENS_FOLDER
    rows = _share_rows(same, tokens) if same else _write_rows(request, workspace, tokens)
    (staging / SAMPLES_NAME).write_text(json.dumps(rows.prompts, indent=2))
    items = _item_lengths(tokens / "train", train)
    train, steps, fits = configure(request, workspace, staging, len(items), change)
    return Prepared(train, rows, steps, expect_epoch(request.architecture, train, fits, items, steps))


def _write_rows(request: Request, workspace: Workspace, tokens: Path) -> Rows:
    data, longest = request.data, request.train.max_seq_len
    tokenizer = load_tokenizer(workspace.root / request.model.path)
    with open_parts(workspace.root / request.dataset.path, data) as parts:
        shape = parts.shape
        train, lengths = tokenize(parts.train, tokenizer, shape, data, longest, tokens / "train")
        held_out, _ = tokenize(parts.held_out, tokenizer, shape, data, longest, tokens / "held_out")
        prompts = samples(parts.held_out, tokenizer, shape, data, longest, SAMPLES)
    has_template = tokenizer.chat_template != DEFAULT_CHAT_TEMPLATE
    return Rows(tokens, shape.kind, train, held_out, lengths, prompts, has_template)


def _share_rows(rows: Rows, tokens: Path) -> Rows:
    """Takes the tokens of another training, without their bytes where the volume lets files have two names."""
    shutil.copytree(rows.tokens, tokens, copy_function=_link_or_copy)
    return replace(rows, tokens=tokens)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _item_lengths(tokens: Path, train: TrainSettings) -> list[int]:
    """Tokens of each row, or of each sequence of them."""
    lengths = row_lengths(datasets.load_from_disk(str(tokens)))
    return [train.max_seq_len] * len(pack_rows(lengths, train.max_seq_len)) if train.packed else lengths


def expect_epoch(
    architecture: Architecture,
    train: TrainSettings,
    fits: Sequence[Fit],
    items: Sequence[int],
    steps: Steps,
    needs: Needs = footprint,
) -> Forecast:
    """What a training will need, for the very batches of its first epoch.

    Args:
        architecture: The model's.
        train: Settings, with the batch size that is meant.
        fits: The ways to read the rows.
        items: Tokens of each row, or of each sequence of them.
        steps: How many updates there will be.
        needs: The memory for a batch of such rows.
    """
    rows = train.rows_a_step * train.data_parallel_dim
    order = order_rows(items, rows, np.random.default_rng([train.seed, 0]))
    updates = np.asarray(items)[order][: steps.an_epoch]
    return forecast(train, fits, architecture, updates, max(items), needs)


def configure(
    request: ModelRequest,
    workspace: Workspace,
    staging: Path,
    items: int,
    change: Change = dict,
) -> tuple[TrainSettings, Steps, Sequence[Fit]]:
    """Writes the configuration, and what it leaves to the machine that trains.

    Args:
        request: The training.
        workspace: The tree on the volume.
        staging: The directory that becomes the training's.
        items: Rows to train on, or sequences of them if they are packed.
        change: What becomes of the configuration.

    Returns:
        The settings, with the batch size that follows from the rows, how many updates there will be, and the ways to
        put their rows into memory.

    Raises:
        UserError: If there are too few rows.
    """
    train = request.train.settled(items)
    steps = _count_steps(items, train)
    fits = possible_fits(request.train, train)
    write_fits(staging, fits)
    model = workspace.root / request.model.path
    weights = weight_files(request.model)
    config = build_config(train, request.architecture, model, weights, workspace.training(request.key), steps)
    write_config(staging / "config.yaml", apply_overrides(change(config), train.overrides), train)
    return train, steps, fits


def weight_files(model: Manifest) -> list[str]:
    """Names of a model's safetensors files.

    Args:
        model: Of the published model.
    """
    return [file.path for file in model.files if file.path.endswith(".safetensors")]


def _count_steps(rows: int, train: TrainSettings) -> Steps:
    steps = count_steps(rows, train)
    if steps.total:
        return steps
    items = "sequences" if train.packed else "rows"
    in_a_step = train.batch_size * train.gradient_accumulation_steps * train.data_parallel_dim
    raise refuse(
        "batch_size",
        f"{train.batch_size} x {train.gradient_accumulation_steps} accumulated x {train.data_parallel_dim} "
        f"processes = {in_a_step} {items} in a step, with {rows} {items} to train on",
        "at most as many in a step as there are",
        "Lower batch_size or gradient_accumulation_steps, or give more rows.",
    )
