"""Runs the main job on this machine: `make demo`."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kfp_finetune.client.demo.docstrings import write_dataset
from kfp_finetune.client.events import StepFinished, StepStarted
from kfp_finetune.client.outcome import show_outcome
from kfp_finetune.client.run import run_pipeline
from kfp_finetune.client.summary import RunSummary, read_summary
from kfp_finetune.client.view import RunView
from kfp_finetune.errors import clear_errors
from kfp_finetune.progress import Progress
from kfp_finetune.workspace import Workspace

PIPELINE = Path("pipelines/torchtune_finetune/pipeline.yaml")
SERIES = "demo"
SETTINGS = {
    "method": "lora",
    "dtype": "fp32",
    "num_procs_per_node": "2",
    "batch_size": "8",
    "max_seq_len": "128",
    "lora_rank": "16",
    "learning_rate": "0.004",
}
"""What the demo sets, measured to learn the most in the time that a newcomer waits."""

console = Console()


def main(
    model: Annotated[str, typer.Option(help="A model to fine-tune instead of the demo's.")] = "",
    dataset: Annotated[str, typer.Option(help="A dataset to use instead of the demo's.")] = "",
    set_: Annotated[list[str], typer.Option("--set", help="A parameter of the pipeline: NAME=VALUE.")] = [],  # noqa: B006
    directory: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("build/demo"),
) -> None:
    """Fine-tunes a small model, or the one given, and shows what it learned."""
    began = time.monotonic()
    directory = directory.resolve()
    assignments = [f"name={SERIES}", *choose_model(model, directory), *choose_dataset(dataset, directory)]
    with clear_errors():
        run_pipeline(PIPELINE, assignments + set_, directory / "workspace", console)
    summary = read_summary(Workspace(directory / "workspace"), SERIES)
    write_summary(directory / "summary.json", summary, time.monotonic() - began)
    show_outcome(console, summary)
    console.print("\nYour own model and data next:")
    console.print('  make demo MODEL=path/to/model DATASET=path/to/rows.jsonl SET="epochs=2"', markup=False)


def choose_dataset(given: str, directory: Path) -> list[str]:
    """The parameters that name the rows: those given, or the standard library's docstrings, made here once.

    Args:
        given: A dataset, or empty.
        directory: Where the demo's own is written.
    """
    if given:
        return [f"dataset={given}"]
    return [f"dataset={docstrings(directory)}", "held_out=test"]


def choose_model(given: str, directory: Path) -> list[str]:
    """The parameters that name the base model: the one given, or a small one, made here once.

    Args:
        given: A model, or empty.
        directory: Where the demo's own is written.
    """
    if given:
        return [f"model={given}"]
    base = directory / "base"
    if not (base / "config.json").exists():
        from kfp_finetune.client.demo.tiny_model import reference_texts, write_base_model

        texts = reference_texts(docstrings(directory) / "train.jsonl")
        with RunView(console) as view:
            view(StepStarted("a small base model, pretrained on docstrings"))

            def on_step(step: int, total: int, loss: float) -> None:
                view(Progress("pretrain", step, total, "step", None, {"loss": round(loss, 3)}))

            write_base_model(base, texts, on_step=on_step)
            view(StepFinished("a small base model, pretrained on docstrings", True))
    return [f"model={base}", *(f"{name}={value}" for name, value in SETTINGS.items())]


def docstrings(directory: Path) -> Path:
    """The demo's dataset, written unless it is there.

    Args:
        directory: Where to write it.
    """
    rows = directory / "docstrings"
    if not (rows / "test.jsonl").exists():
        with RunView(console) as view:
            view(StepStarted("docstrings of the standard library"))
            write_dataset(rows)
            view(StepFinished("docstrings of the standard library", True))
    return rows


def write_summary(path: Path, summary: RunSummary, seconds: float) -> None:
    """Writes the run's figures as JSON.

    Args:
        path: The file.
        summary: The run.
        seconds: From the command to the end, data and base model included.
    """
    fields = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(summary).items()}
    path.write_text(json.dumps({**fields, "seconds": round(seconds, 1)}, indent=2))


if __name__ == "__main__":
    sys.argv[0] = "kfp-finetune-demo"
    typer.run(main)
