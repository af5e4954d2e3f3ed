"""What preference tuning is expected to need, against what is counted."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import preferences
import pytest
import torch
from counted import Peak
from shapes import architecture_of, build
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchtune.data import padded_collate_dpo
from torchtune.rlhf.loss import DPOLoss

from kfp_finetune.components.torchtune_train.data import PairDataset
from kfp_finetune.components.torchtune_train.families import Architecture
from kfp_finetune.components.torchtune_train.memory import footprint, frozen_bytes, parameters
from kfp_finetune.components.torchtune_train.pair_memory import pair_footprint
from kfp_finetune.components.torchtune_train.preferences import loss_of_pairs, spare_logits
from kfp_finetune.components.torchtune_train.sampler import LengthSampler
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.training.forecast import Forecast
from kfp_finetune.training.planning import describe as describe_outcome

PAIRS, TOKENS, VOCABULARY = 2, 64, 8192


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> preferences.Given:
    return preferences.start(tmp_path_factory.mktemp("world"), preferences.rows(60))


def recipe_of(train: TrainSettings, architecture: Architecture) -> Any:
    """What of a recipe computes the loss."""
    model = build(train, architecture)
    reference = model if train.has_adapter else build(train, architecture).requires_grad_(False)
    recipe = SimpleNamespace(
        _model=model,
        _ref_model=reference,
        _device=torch.device("cpu"),
        _loss_fn=DPOLoss(),
        activations_handling_ctx=nullcontext(),
    )
    spare_logits(recipe)
    return recipe


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_memory_is_what_a_step_takes(method: str, dtype: Any):
    architecture = architecture_of("llama", vocab_size=VOCABULARY)
    train = TrainSettings(method=method, max_seq_len=TOKENS, dtype=dtype)
    recipe = recipe_of(train, architecture)
    weights = [*recipe._model.parameters(), *recipe._ref_model.parameters()]
    tokens = torch.randint(VOCABULARY, (2 * PAIRS, TOKENS))
    with Peak(weights) as peak:
        loss_of_pairs(recipe, (tokens, tokens)).backward()
    told = pair_footprint(train, architecture, PAIRS, TOKENS)
    assert told.activations + max(told.loss, told.working) == pytest.approx(peak.bytes, rel=0.02)


def test_a_reference_of_its_own_is_a_second_model_s_weights():
    architecture = architecture_of("llama")
    full, lora = (TrainSettings(method=method, max_seq_len=TOKENS) for method in ("full", "lora"))
    beside = [
        pair_footprint(train, architecture, PAIRS, TOKENS).weights - footprint(train, architecture, 1, TOKENS).weights
        for train in (full, lora)
    ]
    assert beside == [frozen_bytes(full, architecture), 0]
    assert beside[0] >= 2 * parameters(architecture)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"batch_size": 4}, {"num_procs_per_node": 2}], ids=str)
def test_a_plan_tells_the_tokens_that_its_first_epoch_reads(world: preferences.Given, settings: dict[str, Any]):
    outcome = world.plan(**settings)
    told, folder = Forecast.from_dict(outcome.plan.expected), world.root / outcome.plan.training
    way, readers = told.ways[0], settings.get("num_procs_per_node", 1)
    rows = PairDataset(None, str(folder / "tokens/train"), way.batch_size * way.gradient_accumulation_steps, 42)
    read = 0
    for rank in range(readers):
        order = list(LengthSampler(rows, readers, rank))
        for at in range(0, len(order), way.batch_size):
            tokens, _ = padded_collate_dpo([rows[row] for row in order[at : at + way.batch_size]])
            read += tokens.numel()
    assert way.tokens_an_epoch == read
    assert told.tokens_a_row == max(rows.lengths)
    assert "expected on" in describe_outcome(outcome)
    assert "Will it fit?" in (folder / "data.html").read_text()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_operations_are_those_that_torch_counts(world: preferences.Given, method: str):
    plan = world.plan(method=method).plan
    way = Forecast.from_dict(plan.expected).ways[0]
    architecture = architecture_of("qwen2", num_hidden_layers=2)
    recipe = recipe_of(TrainSettings(method=method, max_seq_len=128, dtype="fp32"), architecture)
    rows = PairDataset(None, str(world.root / plan.training / "tokens/train"), way.batch_size)
    batch = padded_collate_dpo([rows[row] for row in range(way.batch_size)])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss_of_pairs(recipe, batch).backward()
    counted = counter.get_total_flops() / batch[0].numel()
    assert way.flops_an_epoch / way.tokens_an_epoch == pytest.approx(counted, rel=0.05)
