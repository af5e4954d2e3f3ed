"""What a registry is told of an export: where it lies, how it was made, how good it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp_finetune._version import VERSION
from kfp_finetune.components.export_model.addresses import last_part, public
from kfp_finetune.components.export_model.markdown import one_line
from kfp_finetune.components.export_model.provenance import gather
from kfp_finetune.components.export_model.this_run import ThisRun
from kfp_finetune.series import MERGED_FOLDER
from kfp_finetune.training.evaluation import read_evaluation
from kfp_finetune.training.gate import gate_figures
from kfp_finetune.training.plan import Plan
from kfp_finetune.workspace import Workspace

DIGEST = "manifest_sha256"
"""The property that tells which files lie at the place: the SHA-256 of the manifest that is published with them."""

MOST_FIGURES = 200
EXPORTS = "exports/"
"""Where a model lies that is an older export of the series."""


@dataclass(frozen=True)
class Entry:
    """A version of a registered model.

    Args:
        version: Its name, the export's key.
        uri: Where the model lies, for whoever serves it; empty where nobody else can read it.
        description: In a line.
        properties: Texts, bounded and without secrets, and numbers.
    """

    version: str
    uri: str = ""
    description: str = ""
    properties: Mapping[str, str | int | float] = field(default_factory=dict)


def describe(plan: Plan, workspace: Workspace, run: ThisRun) -> Entry:
    """What is known of an export; its place is the volume's, until it is published elsewhere.

    Args:
        plan: The training.
        workspace: The tree on the volume.
        run: The run that exports.
    """
    base, dataset = plan.origin or plan.base, public(plan.dataset)
    revision = gather(workspace.root, plan).base_revision
    goes_on = plan.model.startswith(EXPORTS)
    texts = {
        "run_id": run.run_id,
        "run_link": run.page,
        "pipeline": run.pipeline,
        "made_with": f"kfp-finetune {VERSION}",
        "base_model": public(base),
        "base_model_revision": "" if goes_on else revision,
        "began_with": public(plan.base) if goes_on else "",
        "began_with_revision": revision if goes_on else "",
        "dataset": dataset,
        "dataset_revision": plan.dataset_revision,
        "method": plan.method,
        "trainer": plan.trainer,
        "transformer_type": plan.transformer_type,
        "license": plan.license,
        "training": plan.key,
    }
    known = {name: one_line(text) for name, text in texts.items() if text}
    volume = run.volume_address(workspace.root)
    return Entry(
        version=plan.key,
        uri=f"{volume}/{workspace.relative(workspace.export(plan.key))}/{MERGED_FOLDER}" if volume else "",
        description=one_line(f"{last_part(base)}, fine-tuned on {dataset} ({plan.method}, {plan.trainer})"),
        properties={**known, **_figures(read_evaluation(workspace.root / plan.training))},
    )


def _figures(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the held-out rows and of tasks, by names that tell before from after."""
    if not evaluation:
        return {}
    of_type = evaluation.get("figures_after", {})
    known = {"loss": "loss_after"} | {name: f"figures_after.{name}" for name in of_type}
    named = {known.get(name, name): value for name, value in gate_figures(evaluation).items()}
    figures = {"loss_before": evaluation.get("loss_before"), **named}
    finite = {
        one_line(str(name)): float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    return dict(list(finite.items())[:MOST_FIGURES])


def place_on_hub(repository: str, commit: str) -> str:
    """A place on the Hub as KServe reads it.

    Args:
        repository: "ORGANISATION/NAME".
        commit: The commit.
    """
    return f"hf://{repository}:{commit}"


def place_in_s3(folder: str) -> str:
    """A folder in S3 as KServe reads it: what begins alike and is another folder is not meant.

    Args:
        folder: Its address without a slash at the end.
    """
    return f"{folder}/"
