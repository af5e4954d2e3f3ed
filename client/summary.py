"""A finished fine-tuning in a few figures, read from the volume."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kfp_finetune.manifests import read_manifest
from kfp_finetune.training.evaluation import read_evaluation
from kfp_finetune.training.result import read_result
from kfp_finetune.workspace import REPORT_NAME, Workspace


@dataclass(frozen=True)
class RunSummary:
    """What a series' newest fine-tuning came to.

    Args:
        loss_before: Held-out loss of the base.
        loss_after: Held-out loss of the tuned model.
        tokens_per_second: In training, of all processes together.
        export: The directory that transformers loads.
        adapter: The directory that peft loads, or None.
        report: The HTML report.
        prompt: A held-out prompt; it and the answers are empty if none was short enough.
        expected: Its answer in the data.
        base_answer: The base's answer.
        tuned_answer: The tuned model's answer.
        figures_before: What else was measured of the base on the held-out rows, by name.
        figures_after: The same of the tuned model.
    """

    loss_before: float
    loss_after: float
    tokens_per_second: float
    export: Path
    adapter: Path | None
    report: Path
    prompt: str
    expected: str
    base_answer: str
    tuned_answer: str
    figures_before: Mapping[str, float] = field(default_factory=dict)
    figures_after: Mapping[str, float] = field(default_factory=dict)


def read_summary(workspace: Workspace, name: str) -> RunSummary:
    """The summary of a series' newest export.

    Args:
        workspace: The tree on the volume.
        name: The series.

    Raises:
        FileNotFoundError: If the series has no export.
    """
    latest = workspace.latest(name)
    manifest = read_manifest(latest)
    if manifest is None:
        raise FileNotFoundError(f"{latest} has no export")
    training = workspace.training(manifest.key)
    adapter = latest / "adapter"
    evaluation = read_evaluation(training)
    if not evaluation:
        raise FileNotFoundError(f"{training} is gone")
    sample = next(iter(evaluation.get("samples", [])), {"prompt": "", "expected": "", "base": "", "tuned": ""})
    return RunSummary(
        loss_before=evaluation["loss_before"],
        loss_after=evaluation["loss_after"],
        tokens_per_second=read_result(training).tokens_per_second,
        export=latest / "merged",
        adapter=adapter if adapter.is_dir() else None,
        report=latest / REPORT_NAME,
        prompt=sample["prompt"],
        expected=sample["expected"],
        base_answer=sample["base"],
        tuned_answer=sample["tuned"],
        figures_before=evaluation.get("figures_before", {}),
        figures_after=evaluation.get("figures_after", {}),
    )
