"""Publishes an export at each of its places."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from kfp_finetune.components.export_model.publish.entry import DIGEST, Entry, describe, place_in_s3, place_on_hub
from kfp_finetune.components.export_model.publish.hub import check_hub, publish_to_hub
from kfp_finetune.components.export_model.publish.layout import Layout, lay_out
from kfp_finetune.components.export_model.publish.registry import check_registry, publish_to_registry
from kfp_finetune.components.export_model.publish.s3 import check_s3, publish_to_s3
from kfp_finetune.components.export_model.publish.targets import (
    HubTarget,
    Published,
    RegistryTarget,
    S3Target,
    Target,
    check_targets,
    parse_targets,
)
from kfp_finetune.components.export_model.this_run import ThisRun, check_ui_host
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.manifests import Manifest
from kfp_finetune.sources.s3_client import S3Options
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.published import note_published
from kfp_finetune.workspace import open_workspace

T = TypeVar("T", bound=Target)


def publish(
    export: Path,
    manifest: Manifest,
    targets: Sequence[Target],
    s3: S3Options | None = None,
    entry: Entry | None = None,
) -> list[Published]:
    """Puts an export at every place; where it is already, whole, nothing is written.

    A place that fails does not keep the others from being filled. Registries come last, and only if all others hold the
    export: they are told the first place in S3, or else that on the Hub, or else the volume's.

    Args:
        export: The export's directory.
        manifest: What it holds.
        targets: Where; see `parse_targets`.
        s3: How S3 is reached. Default: as the environment says.
        entry: What registries are told. Default: the key alone.

    Returns:
        What lies where, in the order of the targets, registries last.

    Raises:
        UserError: With what went wrong at any of them. A branch is then as it was; a folder of S3 has no manifest.
        StepError: If the export's files are not as its manifest says.
    """
    if not targets:
        return []
    layout = lay_out(export, manifest)
    registries = [target for target in targets if isinstance(target, RegistryTarget)]
    holders = [target for target in targets if not isinstance(target, RegistryTarget)]
    published, problems = _do_each(holders, lambda target: _publish(target, layout, s3 or S3Options()))
    if registries and not problems:
        told = _at_its_place(entry or Entry(manifest.key), holders, published, layout)
        registered, problems = _do_each(registries, lambda target: _register(target, told))
        published += registered
    if problems:
        raise UserError(problems)
    return published


def _do_each(targets: Sequence[T], act: Callable[[T], Published]) -> tuple[list[Published], list[Problem]]:
    """What was done at each place, and what went wrong at the others."""
    done: list[Published] = []
    problems: list[Problem] = []
    for target in targets:
        try:
            done.append(act(target))
        except UserError as error:
            problems += error.problems
    return done, problems


def _publish(target: HubTarget | S3Target, layout: Layout, options: S3Options) -> Published:
    if isinstance(target, HubTarget):
        published = publish_to_hub(target, layout)
    else:
        published = publish_to_s3(target, layout, options)
    print(f"published at {published.url}", flush=True)
    return published


def _register(target: RegistryTarget, entry: Entry) -> Published:
    registered = publish_to_registry(target, entry)
    print(f"registered {entry.uri} at {registered.url}", flush=True)
    return registered


def _at_its_place(
    entry: Entry, targets: Sequence[HubTarget | S3Target], published: Sequence[Published], layout: Layout
) -> Entry:
    """An entry with the place that serving can read, and the digest of what lies there."""
    pairs = list(zip(targets, published, strict=True))
    in_s3 = [place_in_s3(one.url) for target, one in pairs if isinstance(target, S3Target)]
    on_hub = [place_on_hub(target.repository, one.revision) for target, one in pairs if isinstance(target, HubTarget)]
    place = next(iter([*in_s3, *on_hub]), entry.uri)
    return replace(entry, uri=place, properties={**entry.properties, DIGEST: layout.manifest.sha256})


def publish_export(
    manifest: Manifest, publish_to: str, workspace_root: str, plan: Plan, run: ThisRun | None = None
) -> list[Published]:
    """Publishes an export that lies on the volume, and notes where.

    Args:
        manifest: Of the export.
        publish_to: What the user gave.
        workspace_root: Absolute path of the mounted volume.
        plan: The training, for registries.
        run: The run that exports, for registries. Default: none that is known.

    Raises:
        UserError: With everything that went wrong.
    """
    workspace = open_workspace(workspace_root)
    targets = parse_targets(publish_to)
    has_registry = any(isinstance(target, RegistryTarget) for target in targets)
    told = describe(plan, workspace, run or ThisRun()) if has_registry else None
    published = publish(workspace.root / manifest.path, manifest, targets, entry=told)
    note_published(workspace, manifest, {one.address: one.url for one in published})
    return published


def check_publishing(
    publish_to: str, workspace_root: str = "", run: ThisRun | None = None
) -> tuple[list[str], list[Problem]]:
    """What is wrong with where an export is to be published, before anything is trained.

    Args:
        publish_to: What the user gave.
        workspace_root: Where the volume is mounted.
        run: What is known of the run; its UI's address is looked at, and its volume. Default: nothing.

    Returns:
        The addresses, and every problem; the servers are asked only if there is none with the addresses.
    """
    run = run or ThisRun()
    problems = check_targets(publish_to, on_volume=bool(run.volume_address(workspace_root)))
    problems += check_ui_host(run.ui_host)
    if problems:
        return [], problems
    targets = parse_targets(publish_to)
    return [target.address for target in targets], check_access(targets)


def check_access(targets: Sequence[Target], s3: S3Options | None = None) -> list[Problem]:
    """What keeps an export from being published, asked of the servers before there is one; nothing is written.

    Args:
        targets: Where.
        s3: How S3 is reached. Default: as the environment says.
    """
    return [problem for target in targets for problem in _check(target, s3 or S3Options())]


def _check(target: Target, options: S3Options) -> list[Problem]:
    if isinstance(target, RegistryTarget):
        return check_registry(target)
    return check_hub(target) if isinstance(target, HubTarget) else check_s3(target, options)
