"""What a training is expected to need and how long it lasts, against counted tokens and operations."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from given import start
from shapes import architecture_of, build
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kfp_finetune.components.torchtune_train.data import TokenDataset
from kfp_finetune.components.torchtune_train.fits import possible_fits
from kfp_finetune.components.torchtune_train.forecast import forecast
from kfp_finetune.components.torchtune_train.sampler import LengthSampler
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.components.torchtune_train.speed import flops_a_token, padded_tokens
from kfp_finetune.gpus import GPUS, Gpu
from kfp_finetune.training.forecast import FILLED, UTILISATION, Forecast, describe, duration, table, warn
from kfp_finetune.training.planning import describe as describe_outcome

BIG, SMALL = Gpu("big", (), 80 * 1024, 100.0, 10.0), Gpu("small", (), 1024, None, 1.0)
ROWS, TOKENS, LONGEST = 2, 64, 16_384


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma"])
def test_operations_are_those_that_torch_counts(family: str, method: str):
    architecture = architecture_of(family, hidden_size=256, intermediate_size=512)
    train = TrainSettings(method=method, max_seq_len=TOKENS, dtype="fp32")
    model = build(train, architecture)
    # The mathematical kernel is the one whose operations are counted on a CPU, and it computes what is masked too.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.randint(320, (ROWS, TOKENS))).sum().backward()
    assert ROWS * TOKENS * flops_a_token(train, architecture, TOKENS) == pytest.approx(
        counter.get_total_flops(), rel=0.03
    )


def test_activation_checkpointing_computes_the_layers_once_more():
    architecture = architecture_of("llama")
    train = TrainSettings(method="full", max_seq_len=TOKENS)
    once, again = (
        flops_a_token(replace(train, enable_activation_checkpointing=asked), architecture, TOKENS)
        for asked in (False, True)
    )
    output = 6 * 320 * 64
    assert again - output == pytest.approx(4 / 3 * (once - output))


def test_padding_is_what_each_process_fills_its_batches_up_with():
    updates = np.array([[9, 8, 7, 6], [5, 4, 3, 1]])
    assert padded_tokens(updates, readers=1, rows=1) == updates.sum()
    assert padded_tokens(updates, readers=1, rows=4) == 4 * 9 + 4 * 5
    assert padded_tokens(updates, readers=2, rows=2) == 2 * (9 + 8) + 2 * (5 + 4)
    assert padded_tokens(updates, readers=1, rows=2) == 2 * (9 + 7) + 2 * (5 + 3)
    assert padded_tokens(updates[:0], readers=2, rows=2) == 0


def made(**changes: Any) -> Forecast:
    train = TrainSettings(method="lora", max_seq_len=TOKENS, **changes)
    settled = train.settled(10_000)
    updates = np.full((10, settled.rows_a_step * settled.data_parallel_dim), TOKENS)
    return forecast(settled, possible_fits(train, settled), architecture_of("llama"), updates, LONGEST)


def test_each_way_to_read_rows_needs_less_than_the_one_before_and_all_train_on_as_many():
    told = made()
    assert [(way.batch_size, way.enable_activation_checkpointing) for way in told.ways] == [
        (8, False),
        (4, False),
        (2, False),
        (1, False),
        (1, True),
    ]
    needs = [way.memory_gib for way in told.ways]
    assert needs == sorted(needs, reverse=True) and len(set(needs)) > 1
    assert {way.tokens_an_epoch for way in told.ways} == {10 * 8 * TOKENS}
    assert told.ways[-1].flops_an_epoch > told.ways[0].flops_an_epoch
    assert Forecast.from_dict(told.to_dict()) == told


def test_a_gpu_takes_the_fastest_way_that_its_memory_is_enough_for():
    told = made()
    big = told.on(BIG)
    assert big.fits and big.way == told.ways[0]
    assert big.seconds_an_epoch == pytest.approx(told.ways[0].flops_an_epoch / (UTILISATION * 100e12))
    assert made(num_procs_per_node=2).on(BIG).seconds_an_epoch == pytest.approx(big.seconds_an_epoch)
    exactly = replace(SMALL, memory_mib=int(1024 * told.ways[2].memory_gib / FILLED) + 1)
    assert told.on(exactly).fits and told.on(exactly).way == told.ways[2]
    assert told.on(exactly).seconds_an_epoch is None  # It has no bf16.
    assert replace(told, dtype="fp32").on(exactly).seconds_an_epoch


def test_what_fits_nowhere_is_a_warning_with_what_to_do():
    told = made()
    assert warn(told) == []
    huge = replace(told, ways=[replace(told.ways[0], memory_gib=500.0)])
    assert not huge.on(GPUS[-1]).fits and huge.on(GPUS[-1]).seconds_an_epoch is None
    (line,) = warn(huge)
    assert "500 GiB" in line and "enable_activation_checkpointing" in line and "qlora" in line and "batch_size" in line
    assert describe(huge)[-1] == line
    assert {row[3] for row in table(huge)[1]} == {"no"}
    checked = replace(told.ways[-1], memory_gib=500.0)
    assert "enable_activation_checkpointing" not in warn(replace(told, ways=[checked]))[0]


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"batch_size": 4, "packed": True}, {"num_procs_per_node": 2}])
def test_a_plan_tells_the_tokens_that_its_first_epoch_reads(tmp_path, settings: dict[str, Any]):
    given = start(tmp_path, rows=120)
    outcome = given.plan(dtype="bf16", **settings)
    told = Forecast.from_dict(outcome.plan.expected)
    way, readers = told.ways[0], settings.get("num_procs_per_node", 1)
    tokens = given.root / outcome.plan.training / "tokens" / "train"
    in_update = way.batch_size * way.gradient_accumulation_steps
    tokenizer = type("Tokenizer", (), {"pad_id": 0})
    rows = TokenDataset(tokenizer, str(tokens), settings.get("packed", False), 128, in_update, 42)
    read = 0
    for rank in range(readers):
        order = list(LengthSampler(rows, readers, rank))
        batches = [order[at : at + way.batch_size] for at in range(0, len(order), way.batch_size)]
        read += sum(len(batch) * max(rows.lengths[row] for row in batch) for batch in batches)
    assert way.tokens_an_epoch == read
    assert told.tokens_a_row == max(rows.lengths)
    assert "expected on" in describe_outcome(outcome)
    assert "Will it fit?" in (given.root / outcome.plan.training / "data.html").read_text()


@pytest.mark.parametrize(("seconds", "words"), [(0.1, "1 s"), (59, "59 s"), (3000, "50 min"), (5400, "1.5 h")])
def test_durations_are_as_exact_as_an_estimate(seconds: float, words: str):
    assert duration(seconds) == words
