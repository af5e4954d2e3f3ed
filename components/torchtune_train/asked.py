"""What a run is to do with a model that torchtune trains, looked at before it is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from kfp_finetune.components.evaluate_model.tasks import plan_tasks
from kfp_finetune.components.export_model.planned import plan_export
from kfp_finetune.components.export_model.publish.run import check_publishing
from kfp_finetune.components.export_model.this_run import ThisRun
from kfp_finetune.errors import Problem
from kfp_finetune.manifests import Manifest
from kfp_finetune.training.gate import check_gate, named_of_tasks
from kfp_finetune.training.planning import Asked


def check_asked(
    model: Manifest,
    figures: Sequence[str],
    evaluation: Mapping[str, Any],
    gate: Mapping[str, Any],
    export: Mapping[str, Any],
    publish_to: str,
    this_run: ThisRun,
    workspace: str,
) -> tuple[Asked, list[Problem]]:
    """Reads what is asked of evaluation, gate, export and publishing.

    Args:
        model: Of the published model that training begins with.
        figures: That a gate can bound beside those of tasks.
        evaluation: Tasks; their data is fetched here.
        gate: Bounds.
        export: How the export is to be written.
        publish_to: Where it is to be published.
        this_run: What only the run knows.
        workspace: Absolute path of the mounted volume.

    Returns:
        What was asked, and everything that is wrong with it.
    """
    addresses, problems = check_publishing(publish_to, workspace, this_run)
    tasks, of_tasks = plan_tasks(evaluation, workspace)
    of_harness = named_of_tasks(gate) if of_tasks else tasks.figures
    exporting, of_export = plan_export(export, model, workspace)
    problems += [*of_tasks, *check_gate(gate, (*figures, *of_harness)), *of_export]
    return Asked(tasks.evaluation, gate, exporting, addresses), problems
