"""What a run begins with as the artifacts that KFP shows and hands on."""

from pathlib import Path
from typing import TYPE_CHECKING

from kfp_finetune.artifacts import record_figures, record_manifest
from kfp_finetune.components.initialize_model.start import Start

if TYPE_CHECKING:
    from kfp import dsl


def record_start(start: Start, model: "dsl.Model", report: "dsl.HTML", metrics: "dsl.Metrics") -> None:
    """Writes a model's manifest, page and figures as artifacts.

    Args:
        start: What the run begins with.
        model: Output for the manifest.
        report: Output for the page.
        metrics: Output for parameters and bytes.
    """
    record_manifest(start.model, model)
    Path(report.path).write_text(start.page)
    record_figures(start.model, ["parameters", "bytes"], metrics)
