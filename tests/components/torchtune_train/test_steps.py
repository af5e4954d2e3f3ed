"""Checkpoints inside an epoch: killed at any step, a training ends bit for bit as if nothing had happened."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from given import Given, start
from safetensors.torch import load_file
from saved_often import KILL_NAME

from kfp_finetune.components.torchtune_train.train import WORKER, train
from kfp_finetune.launch.process import LaunchError
from kfp_finetune.metrics import read_metrics
from kfp_finetune.training import train as training
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.steps import newest_step

OFTEN = replace(WORKER, module="saved_often")
ROWS = 120
BIG_ENOUGH = {"hidden_size": 128, "intermediate_size": 256, "num_key_value_heads": 4}
"""Sizes of matrices that four bits can hold."""


@pytest.fixture(autouse=True)
def _find_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def killed_at(number: int, found: Given, plan: Plan) -> int:
    """Trains until a step appears, where the first process is killed; the step that is left."""
    folder = found.root / plan.training
    (folder / KILL_NAME).write_text(str(number))
    with pytest.raises(LaunchError):
        training.train(plan, OFTEN, str(found.root))
    assert not (folder / KILL_NAME).exists(), "it failed before it was killed"
    step = newest_step(folder)
    assert step is not None and step.number >= number
    return step.number


def weights(found: Given, plan: Plan) -> dict[str, torch.Tensor]:
    epoch = found.root / plan.training / f"epoch_{plan.epochs - 1}"
    files = sorted(epoch.rglob("*.safetensors"))
    return {f"{file.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def figures(found: Given, plan: Plan) -> list[dict[str, float]]:
    rows = read_metrics(found.root / plan.training / "metrics.jsonl")
    return [{name: row[name] for name in ("step", "loss", "lr", "grad_norm", "tokens")} for row in rows]


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        ({"method": "full", "num_procs_per_node": 2, "batch_size": 2, "gradient_accumulation_steps": 2}, {}),
        ({"method": "lora", "gradient_accumulation_steps": 2, "batch_size": 2, "advanced": {"lora_dropout": 0.2}}, {}),
        ({"method": "dora", "num_procs_per_node": 2, "batch_size": 2, "advanced": {"lora_dropout": 0.2}}, {}),
        ({"method": "qlora", "batch_size": 4, "advanced": {"lora_dropout": 0.1}}, BIG_ENOUGH),
        ({"method": "full", "packed": True, "max_seq_len": 64, "batch_size": 1, "dtype": "bf16"}, {}),
    ],
    ids=["full-2", "lora", "dora-2", "qlora", "packed"],
)
def test_after_kills_inside_epochs_weights_and_figures_are_those_of_an_undisturbed_run(
    settings: dict[str, Any], model: dict[str, Any], tmp_path: Path
):
    calm, struck = (start(tmp_path / name, "qwen2", ROWS, **model) for name in ("calm", "struck"))
    advanced = settings.get("advanced", {})
    plan = calm.plan(**settings | {"epochs": 2, "advanced": advanced | {"checkpoint_minutes": 0}}).plan
    often = struck.plan(**settings | {"epochs": 2, "advanced": advanced | {"checkpoint_minutes": 1e-9}}).plan
    assert often.key == plan.key and often.total_steps == plan.total_steps
    train(plan, str(calm.root))
    an_epoch = plan.total_steps // 2
    first = killed_at(3, struck, often)
    assert 3 <= first < an_epoch
    second = killed_at(an_epoch + 3, struck, often)
    assert an_epoch + 3 <= second < plan.total_steps
    summary = training.train(often, OFTEN, str(struck.root))
    assert summary.steps == plan.total_steps
    assert figures(struck, often) == figures(calm, plan)
    expected, found = weights(calm, plan), weights(struck, often)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    folder = struck.root / often.training
    assert not [*folder.glob("step_*"), *folder.glob(".tmp-*")]
