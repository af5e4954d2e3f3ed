"""An export as the artifacts that KFP shows."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_finetune.artifacts import record_manifest
from kfp_finetune.components.export_model.publish.targets import Published
from kfp_finetune.manifests import Manifest
from kfp_finetune.reports.page import Note, page
from kfp_finetune.results import MANIFEST, REPORT, print_result
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.record import evaluated_figures
from kfp_finetune.workspace import REPORT_NAME, open_workspace

if TYPE_CHECKING:
    from kfp import dsl

OF_COPY = (
    "quantize",
    "merged_bytes",
    "quantized_bytes",
    "perplexity",
    "quantized_perplexity",
    "perplexity_increase",
)
"""What a manifest says of a quantised copy, if there is one."""


def record_export(
    plan: Plan,
    manifest: Manifest,
    published: Sequence[Published],
    model: "dsl.Model",
    report: "dsl.HTML",
    workspace_root: str,
) -> None:
    """Writes an export as artifacts.

    Args:
        plan: The training.
        manifest: Of the export.
        published: Where it was published.
        model: Output for the manifest.
        report: Output for the page on the whole run.
        workspace_root: Absolute path of the mounted volume.
    """
    root = open_workspace(workspace_root).root
    record_manifest(manifest, model)
    model.metadata |= {"published": ", ".join(one.url for one in published)} if published else {}
    written = root / manifest.path / REPORT_NAME
    if written.exists():
        shutil.copyfile(written, report.path)
    else:
        note = Note("Not evaluated", "The model was not compared with its base; evaluate_model does that.")
        Path(report.path).write_text(page(manifest.path, plan.dataset, [note]))
    evaluated = evaluated_figures(root / plan.training)
    figures: dict[str, float | str] = {"export": manifest.path, "export_bytes": manifest.size, **evaluated}
    figures |= {name: manifest.facts[name] for name in OF_COPY if name in manifest.facts}
    figures |= {one.address: one.url for one in published}
    print_result("export", figures, {MANIFEST: model.uri, REPORT: report.uri})
