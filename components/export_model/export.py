"""Publishes an epoch of a training as a model that is proven to load."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from kfp_finetune.components.export_model.split import write_adapter, write_merged
from kfp_finetune.components.export_model.verify import verify
from kfp_finetune.errors import refuse
from kfp_finetune.manifests import MANIFEST_NAME, Manifest, describe_files, is_intact, read_manifest
from kfp_finetune.publishing import exclusive, publishing
from kfp_finetune.series import MERGED_FOLDER, note_use, prune_series
from kfp_finetune.sources.hub_address import repository_name
from kfp_finetune.training.epochs import check_finished, chosen_epoch, newest_epoch
from kfp_finetune.training.plan import Plan
from kfp_finetune.workspace import REPORT_NAME, Workspace, open_workspace, point_latest


def export(plan: Plan, name: str, workspace_root: str, keep_runs: int = 0) -> Manifest:
    """Publishes a training's model, or finds it published, and makes it the newest of its series; older ones may go.

    Args:
        plan: The training.
        name: The series.
        workspace_root: Absolute path of the mounted volume.
        keep_runs: How many trainings of the series to keep, with this one; 0 for all.

    Returns:
        The manifest of exports/KEY.

    Raises:
        UserError: If the training is not finished, or the name is no plain name.
        ExportError: If the model is not whole.
    """
    workspace = open_workspace(workspace_root)
    workspace.latest(name)
    target = workspace.export(plan.key)
    with exclusive(target):
        manifest = read_manifest(target)
        if manifest is None or not is_intact(target, manifest):
            with publishing(target) as staging:
                manifest = _build(workspace, plan, staging)
                (staging / MANIFEST_NAME).write_text(manifest.to_json())
    link = point_latest(workspace, name, target)
    print(f"exported to {target}; {link} points to it", flush=True)
    note_use(workspace, name, plan.key)
    prune_series(workspace, name, keep_runs)
    return manifest


def _build(workspace: Workspace, plan: Plan, staging: Path) -> Manifest:
    training = workspace.root / plan.training
    epoch = _choose(plan, training)
    base = workspace.root / plan.model
    merged = staging / MERGED_FOLDER
    write_merged(epoch, merged, plan.has_chat_template)
    adapter = staging / "adapter" if write_adapter(epoch, staging / "adapter", repository_name(plan.base)) else None
    if (training / REPORT_NAME).exists():
        shutil.copyfile(training / REPORT_NAME, staging / REPORT_NAME)
    with ThreadPoolExecutor(max_workers=1) as pool:
        files = pool.submit(describe_files, staging)
        verdict = verify(merged, adapter, base, plan.lora_scale, plan.quantizes_base)
    return Manifest(
        kind="export",
        key=plan.key,
        source=plan.base,
        revision=f"{plan.training}/{epoch.name}",
        path=workspace.relative(workspace.export(plan.key)),
        files=files.result(),
        facts={
            "method": plan.method,
            "dataset": plan.dataset,
            "dtype": plan.dtype,
            "origin": plan.origin,
            "work": plan.work,
            "license": plan.license,
            **asdict(verdict),
        },
    )


def _choose(plan: Plan, training: Path) -> Path:
    check_finished(training, plan.key, plan.epochs)
    epoch = chosen_epoch(training) if plan.export_checkpoint == "best" else newest_epoch(training)
    if epoch is None:
        given = f"{plan.key}, which has no evaluation that tells its best epoch"
        raise refuse("training_plan", given, "an evaluated training", "Run evaluate_model before.")
    return epoch
