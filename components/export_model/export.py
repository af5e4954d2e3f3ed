"""Publishes an epoch of a training as a model that is proven to load."""

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kfp_finetune.components.export_model.card import model_card
from kfp_finetune.components.export_model.provenance import gather
from kfp_finetune.components.export_model.publish.layout import CARD_NAME, QUANTIZED_FOLDER
from kfp_finetune.components.export_model.shards import reshard
from kfp_finetune.components.export_model.split import write_adapter, write_merged
from kfp_finetune.components.export_model.verify import verify
from kfp_finetune.errors import UserError, refuse
from kfp_finetune.manifests import MANIFEST_NAME, Manifest, describe_files, is_intact, read_manifest
from kfp_finetune.publishing import exclusive, publishing
from kfp_finetune.series import MERGED_FOLDER, note_use, prune_series
from kfp_finetune.sources.hub_address import repository_name
from kfp_finetune.training.epochs import ADAPTER_FOLDER, check_finished, chosen_epoch, newest_epoch
from kfp_finetune.training.evaluation import EVALUATED, evaluation_digest, read_evaluation, tells_newest
from kfp_finetune.training.exporting import ExportSettings, read_export_settings
from kfp_finetune.training.gate import failed_bounds
from kfp_finetune.training.plan import TORCHTUNE, TRANSFORMERS, Plan
from kfp_finetune.workspace import REPORT_NAME, Workspace, open_workspace, point_latest


def export(
    plan: Plan,
    name: str,
    workspace_root: str,
    keep_runs: int = 0,
    gate: Mapping[str, float] | None = None,
    run_link: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Manifest:
    """Publishes a training's model, or finds it published, and makes it the newest of its series; older ones may go.

    Args:
        plan: The training.
        name: The series.
        workspace_root: Absolute path of the mounted volume.
        keep_runs: How many trainings of the series to keep, with this one; 0 for all.
        gate: Bounds that the training's figures on the held-out rows must keep.
        run_link: Address of the run's page or its id, for the model card.
        settings: The parameter `export`; see `ExportSettings`. An export that was made with others is made anew.

    Returns:
        The manifest of exports/KEY.

    Raises:
        UserError: If the training is not finished, the name is no plain name, the settings are wrong, or the quantised
            copy is not as good as it has to be.
        ExportError: If the model is not whole.
    """
    workspace = open_workspace(workspace_root)
    workspace.latest(name)
    asked, problems = read_export_settings(settings or {})
    if problems:
        raise UserError(problems)
    _check_gate(plan, workspace.root / plan.training, gate or {})
    target = workspace.export(plan.key)
    with exclusive(target):
        manifest = read_manifest(target)
        if manifest is None or not is_intact(target, manifest) or not _is_as_asked(plan, workspace, manifest, asked):
            with publishing(target) as staging:
                manifest = _build(workspace, plan, staging, run_link, asked)
                (staging / MANIFEST_NAME).write_text(manifest.to_json())
    link = point_latest(workspace, name, target)
    print(f"exported to {target}; {link} points to it", flush=True)
    note_use(workspace, name, plan.key)
    prune_series(workspace, name, keep_runs)
    return manifest


def _is_as_asked(plan: Plan, workspace: Workspace, manifest: Manifest, asked: ExportSettings) -> bool:
    """Whether an export was written with these settings, and its card after the newest evaluation."""
    return asked.are_those_of(manifest.facts) and tells_newest(manifest.facts, workspace.root / plan.training)


def _check_gate(plan: Plan, training: Path, gate: Mapping[str, float]) -> None:
    if not gate:
        return
    evaluation = read_evaluation(training)
    if not evaluation:
        given = f"{dict(gate)}, with training {plan.key} that is not evaluated"
        raise refuse("gate", given, "an evaluated training", "Run evaluate_model before.")
    if problems := failed_bounds(gate, evaluation):
        raise UserError(problems)


def _build(workspace: Workspace, plan: Plan, staging: Path, run_link: str, settings: ExportSettings) -> Manifest:
    training = workspace.root / plan.training
    epoch = _choose(plan, training)
    base = workspace.root / plan.model
    if (training / REPORT_NAME).exists():
        shutil.copyfile(training / REPORT_NAME, staging / REPORT_NAME)
    write, prove = WAYS[plan.trainer]
    write(plan, training, epoch, base, staging)
    if settings.max_shard_size:
        reshard(staging / MERGED_FOLDER, settings.max_shard_size)
    with ThreadPoolExecutor(max_workers=1) as pool:
        proven = pool.submit(describe_files, staging)
        verdict = prove(plan, training, epoch, base, staging)
    copy = _quantize(plan, training, staging, settings) if settings.quantize else {}
    about = gather(workspace.root, plan, plan.dataset_revision, run_link)
    facts = {**settings.facts, **copy}
    card = model_card(plan, read_evaluation(training), (staging / ADAPTER_FOLDER).exists(), about, facts)
    (staging / CARD_NAME).write_text(card)
    return Manifest(
        kind="export",
        key=plan.key,
        source=plan.base,
        revision=f"{plan.training}/{epoch.name}",
        path=workspace.relative(workspace.export(plan.key)),
        files=describe_files(staging, proven.result()),
        facts={
            "method": plan.method,
            "dataset": plan.dataset,
            "dtype": plan.dtype,
            "origin": plan.origin,
            "work": plan.work,
            "license": plan.license,
            "transformer_type": plan.transformer_type,
            EVALUATED: evaluation_digest(training),
            **facts,
            **verdict,
        },
    )


def _quantize(plan: Plan, training: Path, staging: Path, settings: ExportSettings) -> Mapping[str, Any]:
    """Writes the copy with fewer bits, and measures what that costs."""
    from kfp_finetune.components.export_model.comparison import compare
    from kfp_finetune.components.export_model.quantized import write_quantized

    merged, copy = staging / MERGED_FOLDER, staging / QUANTIZED_FOLDER
    write_quantized(merged, copy, settings.quantize or "", settings.max_shard_size)
    found = compare(plan, training, merged, copy, settings)
    print(
        f"quantized to {settings.quantize}: {found.quantized_bytes:,} bytes of {found.merged_bytes:,}, "
        f"perplexity {found.quantized_perplexity:.4f} after {found.perplexity:.4f}",
        flush=True,
    )
    return found.facts


def _write_torchtune(plan: Plan, training: Path, epoch: Path, base: Path, staging: Path) -> None:
    write_merged(epoch, staging / MERGED_FOLDER, plan.has_chat_template)
    write_adapter(epoch, staging / ADAPTER_FOLDER, repository_name(plan.base))


def _prove_torchtune(plan: Plan, training: Path, epoch: Path, base: Path, staging: Path) -> Mapping[str, Any]:
    adapter = staging / ADAPTER_FOLDER
    found = adapter if adapter.exists() else None
    return asdict(verify(staging / MERGED_FOLDER, found, base, plan.lora_scale, plan.quantizes_base))


def _write_transformers(plan: Plan, training: Path, epoch: Path, base: Path, staging: Path) -> None:
    from kfp_finetune.components.export_model.predictions import write_trained
    from kfp_finetune.components.transformers_train.recipe import read_recipe

    write_trained(read_recipe(training), epoch, base, staging / MERGED_FOLDER)
    write_adapter(epoch, staging / ADAPTER_FOLDER, repository_name(plan.base))


def _prove_transformers(plan: Plan, training: Path, epoch: Path, base: Path, staging: Path) -> Mapping[str, Any]:
    from kfp_finetune.components.export_model.predictions import verify_predictions
    from kfp_finetune.components.transformers_train.recipe import read_recipe

    return asdict(verify_predictions(read_recipe(training), training, epoch, staging / MERGED_FOLDER))


WAYS: Mapping[str, tuple[Callable[..., None], Callable[..., Mapping[str, Any]]]] = {
    TORCHTUNE: (_write_torchtune, _prove_torchtune),
    TRANSFORMERS: (_write_transformers, _prove_transformers),
}
"""By what trained, how a model is laid out, and how that is proven."""


def _choose(plan: Plan, training: Path) -> Path:
    check_finished(training, plan.key, plan.epochs)
    epoch = chosen_epoch(training) if plan.export_checkpoint == "best" else newest_epoch(training)
    if epoch is None:
        given = f"{plan.key}, which has no evaluation that tells its best epoch"
        raise refuse("training_plan", given, "an evaluated training", "Run evaluate_model before.")
    return epoch
