"""What a training on preferences reads, written once: pairs as tokens, a few prompts, and the whole configuration."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from kfp_finetune.chat import DEFAULT_CHAT_TEMPLATE, load_tokenizer
from kfp_finetune.components.plan_preferences.check import PreferenceRequest
from kfp_finetune.components.plan_preferences.pairs import PairShape, check_columns, find_shape, read_pair
from kfp_finetune.components.plan_preferences.settings import PairSettings
from kfp_finetune.components.plan_preferences.tokens import PairCounts, tokenize_pairs
from kfp_finetune.components.torchtune_train.config import Steps, for_preferences
from kfp_finetune.components.torchtune_train.families import Architecture
from kfp_finetune.components.torchtune_train.fits import Fit
from kfp_finetune.components.torchtune_train.memory import parameters
from kfp_finetune.components.torchtune_train.packing import pair_lengths
from kfp_finetune.components.torchtune_train.pair_memory import pair_footprint
from kfp_finetune.components.torchtune_train.prepare import SAMPLES, SAMPLES_NAME, configure, expect_epoch
from kfp_finetune.components.torchtune_train.samples import LOOKED_AT, last_answer
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.training import parts
from kfp_finetune.training.forecast import Forecast, Way
from kfp_finetune.training.parts import Part, check_sizes
from kfp_finetune.workspace import Workspace


@dataclass(frozen=True)
class Prepared:
    """What became of a training's rows.

    Args:
        settings: The training's, with the batch size that follows from the rows.
        train: Of the rows to train on.
        held_out: Of the rows held out.
        lengths: Of the longer side of each pair to train on, in tokens, before cutting.
        prompts: A few of the held-out pairs, for answers, with the better and the worse answer.
        steps: How many updates of the weights there will be.
        has_chat_template: Whether the base model has one; else `chat.DEFAULT_CHAT_TEMPLATE` was used.
        expected: What the training will need of a GPU.
    """

    settings: TrainSettings
    train: PairCounts
    held_out: PairCounts
    lengths: Sequence[int]
    prompts: Sequence[Mapping[str, Any]]
    steps: Steps
    has_chat_template: bool
    expected: Forecast


def prepare(request: PreferenceRequest, workspace: Workspace, staging: Path) -> Prepared:
    """Writes tokens, prompts and configuration.

    Args:
        request: The training.
        workspace: The tree on the volume.
        staging: The directory that becomes the training's.

    Raises:
        UserError: If a row does not fit, or there are too few.
    """
    data, longest = request.data, request.train.max_seq_len
    tokenizer = load_tokenizer(workspace.root / request.model.path)
    tokens = staging / "tokens"
    with _open_parts(workspace.root / request.dataset.path, data) as (train, held_out, shape):
        counts, lengths = tokenize_pairs(train, tokenizer, shape, data, longest, tokens / "train")
        of_held_out, _ = tokenize_pairs(held_out, tokenizer, shape, data, longest, tokens / "held_out")
        prompts = _samples(held_out, tokenizer, shape, data, longest)
    (staging / SAMPLES_NAME).write_text(json.dumps(prompts, indent=2))
    change = partial(for_preferences, settings=request.train, **request.preference.to_dict())
    settled, steps, fits = configure(request, workspace, staging, counts.rows, change)
    has_template = tokenizer.chat_template != DEFAULT_CHAT_TEMPLATE
    longer_sides = pair_lengths(datasets.load_from_disk(str(tokens / "train")))
    expected = _expect(request.architecture, settled, fits, longer_sides, steps)
    return Prepared(settled, counts, of_held_out, lengths, prompts, steps, has_template, expected)


def _expect(
    architecture: Architecture, train: TrainSettings, fits: Sequence[Fit], longer_sides: Sequence[int], steps: Steps
) -> Forecast:
    """What the training will need: both sides are filled up to the longer one, and the reference reads them too.

    A pass forward takes two operations for each number of the matrices (Kaplan et al., 2020, section 2.1).
    """
    of_a_side = expect_epoch(architecture, train, fits, longer_sides, steps, pair_footprint)

    def add(way: Way) -> Way:
        tokens = 2 * way.tokens_an_epoch
        flops = 2 * way.flops_an_epoch + 2 * tokens * parameters(architecture)
        return replace(way, tokens_an_epoch=tokens, flops_an_epoch=flops)

    return replace(of_a_side, ways=[add(way) for way in of_a_side.ways])


@contextmanager
def _open_parts(directory: Path, data: PairSettings) -> Iterator[tuple[Part, Part, PairShape]]:
    with parts.open_parts(directory, data.split, data.held_out) as (train, held_out):
        shape = find_shape(train.rows.column_names, data)
        for part in train, held_out:
            check_columns(shape, part.rows.column_names)
            check_sizes(shape.select(part.rows), part.split)
        yield train, held_out, shape


def _samples(
    part: Part, tokenizer: PreTrainedTokenizerBase, shape: PairShape, data: PairSettings, max_seq_len: int
) -> list[dict[str, Any]]:
    """The first pairs whose prompt fits, each as a prompt and the better answer that is expected."""
    rows = enumerate(islice(shape.select(part.rows), LOOKED_AT))
    pairs = (read_pair(row, part.place(index), shape, data) for index, row in rows)
    found = (
        {**last_answer(pair.chosen, tokenizer), "rejected": pair.rejected.messages[-1].content}
        for pair in pairs
        if not (pair.is_blank or pair.is_equal)
    )
    return list(islice((entry for entry in found if len(entry["prompt_ids"]) < max_seq_len), SAMPLES))
