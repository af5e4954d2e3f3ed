"""Whatever is asked for, the answer is one message or a configuration; and what is accepted really trains.

`make fuzz` looks at 10,000 requests and trains 50 of those accepted, `make test` at 300 and 24 (the environment's
FUZZ_EXAMPLES and FUZZ_TRAININGS).
"""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import parameters
import pytest
import yaml
from given import Given, start
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from many import train_each

from kfp_finetune.components.torchtune_train.check import check_request
from kfp_finetune.components.torchtune_train.config import Steps, build_config
from kfp_finetune.components.torchtune_train.overrides import apply_overrides
from kfp_finetune.components.torchtune_train.planning import make_plan
from kfp_finetune.errors import UserError
from kfp_finetune.training.exporting import ExportSettings
from kfp_finetune.training.planning import Asked
from kfp_finetune.workspace import open_workspace

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
SAMPLES = int(os.environ.get("FUZZ_TRAININGS", "24"))
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 8, "num_key_value_heads": 4}
MODELS = {
    "qwen2": {},
    "qwen3": {"head_dim": 64},
    "llama": {"tie_word_embeddings": False},
    "mistral": {},
    "gemma": {"head_dim": 32},
    "gemma2": {"head_dim": 32},
    "phi3": {},
}

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


def mixed(table: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of a table's keys with values that may be right or anything at all, and keys that do not exist."""
    known = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in table.items()})
    wrong = st.dictionaries(st.sampled_from(sorted(table)) | st.text(max_size=12), ANYTHING, max_size=2)
    return st.builds(lambda right, wrong: {**right, **wrong}, known, st.just({}) | wrong)


REQUESTS = st.builds(
    lambda values, advanced, overrides: {**values, "advanced": advanced, "overrides": overrides},
    mixed(parameters.CHOICES),
    mixed(parameters.ADVANCED) | ANYTHING,
    mixed(parameters.OVERRIDES) | ANYTHING,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Given]]:
    yield {
        family: start(tmp_path_factory.mktemp(family), family, **WIDE | changes) for family, changes in MODELS.items()
    }


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(family=st.sampled_from(sorted(MODELS)), values=REQUESTS, name=st.just("series") | st.text(max_size=45))
def test_any_request_is_one_message_or_a_configuration(
    models: dict[str, Given], family: str, values: dict[str, Any], name: str
):
    found = models[family]
    try:
        request = check_request(found.dataset, found.model, name, values, open_workspace(str(found.root)))
    except UserError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.given and problem.allowed and problem.mend
        return
    config = build_config(request.train, request.architecture, Path("/model"), [], Path("/training"), Steps(1, 1))
    written = yaml.safe_dump(apply_overrides(config, request.train.overrides))
    assert yaml.safe_load(written)["epochs"] == request.train.epochs


def accepted(models: dict[str, Given], count: int, procs: int, seed: int) -> list[Path]:
    """Plans as many different requests as are wanted, drawn at random from all that are accepted."""
    chance, trainings = random.Random(seed), dict[Path, dict[str, Any]]()
    while len(trainings) < count:
        found = models[chance.choice(sorted(models))]
        values = {"epochs": 1, "split": "train[:16]", **parameters.draw(chance), "num_procs_per_node": procs}
        values["advanced"] = {"max_steps_per_epoch": 1} | values["advanced"]
        if procs > 1 and chance.random() < 0.2:
            found, values["method"] = models["llama"], "full"
            values["advanced"]["tensor_parallel_dim"] = procs
        asked = Asked(export=ExportSettings(quantize=values["advanced"].get("quantization_aware") or None))
        try:
            outcome = make_plan(found.dataset, found.model, "series", values, str(found.root), asked=asked)
        except UserError:
            continue
        trainings[found.root / outcome.plan.training] = values
    return list(trainings)


@pytest.mark.parametrize(("procs", "count"), [(1, SAMPLES // 2), (2, SAMPLES - SAMPLES // 2)])
def test_accepted_requests_drawn_at_random_really_train(models: dict[str, Given], procs: int, count: int):
    trainings = accepted(models, count, procs, seed=procs)
    failed = train_each(trainings, procs)
    first = next(iter(failed), None)
    assert first is None, f"{(first / 'config.yaml').read_text()}\n{failed[first]}"


GOOD: list[dict[str, Any]] = [
    {},
    {"method": "full", "dtype": "bf16", "packed": True},
    {"method": "lora", "lora_rank": 64, "advanced": {"lora_alpha": 128, "lora_dropout": 0.05, "warmup_ratio": 0.1}},
    {"method": "qlora", "batch_size": 4, "advanced": {"optimizer": "adamw_8bit"}},
    {"method": "qdora", "advanced": {"lora_attn_modules": ["q_proj", "v_proj"]}},
    {"method": "dora", "gradient_accumulation_steps": 8, "epochs": 3, "advanced": {"export_checkpoint": "best"}},
    {"train_on_input": True, "new_system_prompt": "Answer.", "held_out": "10%", "split": "train[:90%]"},
    {"method": "full", "advanced": {"enable_activation_checkpointing": True, "enable_activation_offloading": True}},
    {"method": "full", "advanced": {"fsdp_cpu_offload": True, "keep_last_n_checkpoints": 1}},
    {"advanced": {"lr_scheduler": "linear", "weight_decay": 0, "clip_grad_norm": 0, "seed": 7, "compile": True}},
    {"overrides": {"optimizer.betas": [0.9, 0.95], "optimizer.eps": 1e-6}},
    {"overrides": {"optimizer": {"_component_": "torch.optim.SGD", "momentum": 0.9}}},
    {"overrides": {"loss": {"_component_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1}}},
]
"""What people ask for: to be accepted, come what may."""


@pytest.mark.parametrize("values", GOOD)
def test_what_is_known_to_be_good_is_accepted(models: dict[str, Given], values: dict[str, Any]):
    found = models["qwen2"]
    request = check_request(found.dataset, found.model, "series", values, open_workspace(str(found.root)))
    assert replace(request) == request
