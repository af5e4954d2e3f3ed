"""What the steps of a run leave in a training's folder, with a text wherever one can go."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kfp_finetune.metrics import METRICS_NAME
from kfp_finetune.reports.data import describe_data
from kfp_finetune.training.environment import ENVIRONMENT_NAME, Environment
from kfp_finetune.training.plan import DATA_NAME, SETTINGS_NAME, Plan
from kfp_finetune.training.result import RESULT_NAME, Result


def make_plan(text: str = "a", **changes: Any) -> Plan:
    """The plan of three epochs of LoRA."""
    values: dict[str, Any] = {
        "key": text, "training": "trainings/a", "model": "models/a", "base": text, "dataset": text, "method": text,
        "epochs": 3, "num_procs_per_node": 2, "num_nodes": 1, "dtype": "bf16", "total_steps": 50, "lora_scale": 2.0,
        "export_checkpoint": "best", "has_chat_template": True, "train": {"rows": 152}, "held_out": {"rows": 8},
    }  # fmt: skip
    return Plan(**values | changes)


def make_evaluation(text: str = "a") -> dict[str, Any]:
    """What evaluation.json says of a language model that became better."""
    return {
        "loss_before": 3.25,
        "loss_after": 1.5,
        "perplexity_before": math.exp(3.25),
        "perplexity_after": math.exp(1.5),
        "tokens": 1234,
        "rows": 8,
        "epoch": "epoch_1",
        "epoch_losses": {"epoch_0": 2.0, "epoch_1": 1.5, "epoch_2": 1.75},
        "samples": [{"prompt": text, "expected": text, "base": text, "tuned": text}],
        "benchmarks": {
            text: {text: {"base": 0.5, "tuned": 0.75, "stderr": None}},
            "arc_easy": {
                "acc": {"base": 0.25, "tuned": 0.31, "stderr": 0.01},
                "acc_norm": {"base": 0.26, "tuned": 0.27, "stderr": 0.01},
            },
        },
    }


def make_steps(count: int) -> list[dict[str, float]]:
    """The figures of so many steps."""
    return [
        {
            "step": step,
            "loss": 1 + 2 * math.exp(-step / count),
            "lr": 2e-5,
            "tokens_per_second": 18000.0 + step % 7,
            "grad_norm": 1.0 + 0.1 * math.cos(step),
            "peak_memory_alloc": 31.25,
            "peak_memory_host": 4.5,
        }
        for step in range(1, count + 1)
    ]


def leave_run(training: Path, text: str = "a", steps: int = 50) -> None:
    """Writes what planning and training leave."""
    data = describe_data(
        dataset=text,
        model=text,
        lengths=[100 + row % 90 for row in range(152)],
        max_seq_len=128,
        facts={text: text, "Steps": steps},
        samples=[{text: text}],
    )
    environment = Environment(
        versions={text: text, "torch": "2.13.0"},
        cpu=text,
        gpu=text,
        gpu_memory_gib=79.6,
        image=text,
        began="2026-01-02T03:04:05+00:00",
        started="2026-01-02T03:04:05+00:00",
        ended="2026-01-02T04:06:05+00:00",
    )
    (training / METRICS_NAME).write_text("".join(json.dumps(row) + "\n" for row in make_steps(steps)))
    (training / DATA_NAME).write_text(data.to_json())
    (training / ENVIRONMENT_NAME).write_text(json.dumps(asdict(environment)))
    (training / SETTINGS_NAME).write_text(json.dumps({text: text, "batch_size": 4, "overrides": {}, "split": ""}))
    (training / RESULT_NAME).write_text(json.dumps(asdict(Result(98_765, 60.0, 33.5, "GPU", 2))))
