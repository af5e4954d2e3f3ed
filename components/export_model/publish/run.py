"""Publishes an export at each of its places."""

from collections.abc import Sequence
from pathlib import Path

from kfp_finetune.components.export_model.publish.hub import check_hub, publish_to_hub
from kfp_finetune.components.export_model.publish.layout import Layout, lay_out
from kfp_finetune.components.export_model.publish.s3 import check_s3, publish_to_s3
from kfp_finetune.components.export_model.publish.targets import (
    HubTarget,
    Published,
    Target,
    check_targets,
    parse_targets,
)
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.manifests import Manifest
from kfp_finetune.sources.s3_client import S3Options
from kfp_finetune.training.published import note_published
from kfp_finetune.workspace import open_workspace


def publish(
    export: Path, manifest: Manifest, targets: Sequence[Target], s3: S3Options | None = None
) -> list[Published]:
    """Puts an export at every place; where it is already, whole, nothing is written.

    A place that fails does not keep the others from being filled.

    Args:
        export: The export's directory.
        manifest: What it holds.
        targets: Where; see `parse_targets`.
        s3: How S3 is reached. Default: as the environment says.

    Returns:
        What lies where, in the order of the targets.

    Raises:
        UserError: With what went wrong at any of them. A branch is then as it was; a folder of S3 has no manifest.
        StepError: If the export's files are not as its manifest says.
    """
    if not targets:
        return []
    layout = lay_out(export, manifest)
    published: list[Published] = []
    problems: list[Problem] = []
    for target in targets:
        try:
            published.append(_publish(target, layout, s3 or S3Options()))
            print(f"published at {published[-1].url}", flush=True)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return published


def publish_export(manifest: Manifest, publish_to: str, workspace_root: str) -> list[Published]:
    """Publishes an export that lies on the volume, and notes where.

    Args:
        manifest: Of the export.
        publish_to: What the user gave.
        workspace_root: Absolute path of the mounted volume.

    Raises:
        UserError: With everything that went wrong.
    """
    workspace = open_workspace(workspace_root)
    published = publish(workspace.root / manifest.path, manifest, parse_targets(publish_to))
    note_published(workspace, manifest, {one.address: one.url for one in published})
    return published


def check_publishing(publish_to: str) -> tuple[list[str], list[Problem]]:
    """What is wrong with where an export is to be published, before anything is trained.

    Args:
        publish_to: What the user gave.

    Returns:
        The addresses, and every problem; the servers are asked only if there is none with the addresses.
    """
    if problems := check_targets(publish_to):
        return [], problems
    targets = parse_targets(publish_to)
    return [target.address for target in targets], check_access(targets)


def check_access(targets: Sequence[Target], s3: S3Options | None = None) -> list[Problem]:
    """What keeps an export from being published, asked of the servers before there is one; nothing is written.

    Args:
        targets: Where.
        s3: How S3 is reached. Default: as the environment says.
    """
    return [
        problem
        for target in targets
        for problem in (check_hub(target) if isinstance(target, HubTarget) else check_s3(target, s3 or S3Options()))
    ]


def _publish(target: Target, layout: Layout, options: S3Options) -> Published:
    return publish_to_hub(target, layout) if isinstance(target, HubTarget) else publish_to_s3(target, layout, options)
