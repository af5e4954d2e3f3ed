"""Model FLOPs utilisation: the arithmetic that a training needs, of what the device could do in the same time."""

import contextlib
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch

from benchmarks.measure import Figure, start_over
from kfp_finetune.client.demo.docstrings import docstring_pairs
from kfp_finetune.client.demo.tiny_model import Shape, write_base_model
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.components.torchtune_train.planning import make_plan
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.components.torchtune_train.speed import flops_a_token
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.gpus import find_gpu
from kfp_finetune.metrics import read_metrics

WARM_UP = 3
"""Updates that are left out: they include the allocator's and the kernels' first use."""


@dataclass(frozen=True)
class Work:
    """What is trained.

    Args:
        name: For the table.
        shape: Of the model.
        length: Tokens of every row.
        rows: Of them, in one epoch.
    """

    name: str
    shape: Shape
    length: int
    rows: int


ON_GPU = Work(
    "1B at 4,096 tokens",
    Shape(
        vocab_size=32_000,
        hidden_size=2048,
        layers=18,
        heads=32,
        key_value_heads=8,
        intermediate_size=8192,
        positions=4096,
    ),
    length=4096,
    rows=240,
)
ON_CPU = Work(
    "15M at 512 tokens",
    Shape(hidden_size=512, layers=4, heads=8, key_value_heads=4, intermediate_size=1408, positions=512),
    length=512,
    rows=80,
)


def measure(directory: Path) -> list[Figure]:
    """Trains rows of full length with the defaults, full and LoRA, and compares with the device's peak.

    The peak of a GPU is that of its data sheet; of a CPU, what a multiplication of two large matrices reaches.

    Args:
        directory: Where to work.
    """
    work = ON_GPU if torch.cuda.is_available() else ON_CPU
    root, rows, base = directory / "workspace", directory / "rows.parquet", directory / "base"
    texts = [pair.answer for pair in docstring_pairs()]
    write_base_model(base, texts, steps=1, shape=work.shape)
    long = " ".join(texts)[: 8 * work.length]  # of at most four characters a token, cut off at the length
    datasets.Dataset.from_dict({"text": [long] * work.rows}).to_parquet(str(rows))
    peak, of_what = _peak()
    figures = []
    for method in ("full", "lora"):
        with (directory / "log").open("w") as log, contextlib.redirect_stdout(log):
            dataset, model = initialize_dataset(str(rows), str(root)), initialize_model(str(base), str(root))
            settings = {"method": method, "max_seq_len": work.length}
            plan = make_plan(dataset, model, "bench", settings, str(root)).plan
            start_over(root / plan.training)
            train(plan, str(root))
        steps = read_metrics(root / plan.training / "metrics.jsonl")[WARM_UP:]
        speed = statistics.median(step["tokens_per_second"] for step in steps)
        architecture = read_architecture(json.loads((base / "config.json").read_text()))
        flops = flops_a_token(TrainSettings(method=method), architecture, work.length)
        name = f"model FLOPs utilisation of {of_what}, {method}, {work.name} ({speed:,.0f} tokens/s)"
        spread = [step["tokens_per_second"] * flops / peak for step in steps]
        goal = {"full": ">= 50 %", "lora": ">= 40 %"}[method] + " on one H100 or H200"
        figures.append(Figure(name, f"{speed * flops / peak:.0%}", goal, f"{min(spread):.0%} to {max(spread):.0%}"))
    return figures


def _peak() -> tuple[float, str]:
    """Operations a second in bf16, and of what."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        gpu = find_gpu(name.replace(" ", "-"))
        if gpu is None or gpu.bf16_tflops is None:
            raise RuntimeError(f"no peak in bf16 is known for {name!r}: add it to kfp_finetune/gpus.py")
        return gpu.bf16_tflops * 1e12, name
    size, times = 2048, 5
    matrix = torch.ones(size, size, dtype=torch.bfloat16)
    matrix @ matrix
    began = time.perf_counter()
    for _ in range(times):
        matrix @ matrix
    reached = 2 * size**3 * times / (time.perf_counter() - began)
    return reached, f"{reached / 1e9:.0f} GFLOP/s, what torch's own matrix multiplication reaches here"
