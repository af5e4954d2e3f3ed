"""What a run begins with: the model that was named, or what its series has made of it so far."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kfp_finetune.components.initialize_model.model import describe_model, initialize_model
from kfp_finetune.components.initialize_model.origin import origin_of
from kfp_finetune.errors import refuse
from kfp_finetune.manifests import Manifest
from kfp_finetune.series import MERGED_FOLDER, Held, hold_newest, release
from kfp_finetune.sources.s3_client import S3Options
from kfp_finetune.workspace import FETCH_REPORT_NAME, Workspace, content_key, open_workspace

LATEST = "latest"
STARTS = ("model", LATEST)
"""Values of start_from."""


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    Args:
        model: Its manifest; beside what a fetched model has, its facts hold `origin`, the address of the model that the
            series began with, and `start_from`. Of a series' export they hold `hold` too, for `series.release`.
        page: The report on it.
    """

    model: Manifest
    page: str


def choose_start(
    uri: str,
    workspace_root: str,
    *,
    start_from: str = "model",
    name: str = "finetune",
    allow_patterns: Sequence[str] = (),
    ignore_patterns: Sequence[str] = (),
    reuse: bool = True,
    keep: int = 0,
    s3: S3Options | None = None,
) -> Start:
    """Finds the newest export of a series, where that is asked for and it descends from the model; else fetches it.

    Args:
        uri: The model's address; see `initialize_model` for this and for the others.
        workspace_root: Absolute path of the mounted volume.
        start_from: "model", or "latest" for the newest export of the series, once there is one made from this model.
        name: The series.
        allow_patterns: Of `initialize_model`.
        ignore_patterns: Of `initialize_model`.
        reuse: Of `initialize_model`.
        keep: Of `initialize_model`.
        s3: Of `initialize_model`.

    Raises:
        UserError: If start_from is neither, the series' newest export is not whole, or the model is not.
    """
    if start_from not in STARTS:
        mend = "Correct start_from and run again."
        raise refuse("start_from", repr(start_from), " or ".join(map(repr, STARTS)), mend)
    workspace = open_workspace(workspace_root)
    origin = origin_of(uri)
    held = _held(workspace, name, uri, origin) if start_from == LATEST else None
    if held is not None:
        return _from_export(workspace, held, origin)
    model = initialize_model(
        uri,
        workspace_root,
        allow_patterns=allow_patterns,
        ignore_patterns=ignore_patterns,
        reuse=reuse,
        keep=keep,
        s3=s3,
    )
    facts = {**model.facts, "origin": origin, "start_from": start_from}
    return Start(replace(model, facts=facts), (workspace.root / model.path / FETCH_REPORT_NAME).read_text())


def _held(workspace: Workspace, name: str, uri: str, origin: str) -> Held | None:
    """The series' newest export, if it descends from the model."""
    held = hold_newest(workspace, name)
    if held is None:
        print(f"series {name} has no export yet: it begins with {uri}", flush=True)
        return None
    path, theirs = held.export.path, held.export.facts.get("origin") or origin_of(held.export.source)
    if theirs != origin:
        release(workspace, held.hold)
        print(f"{path}, the newest of series {name}, descends from {theirs}: it begins anew with {uri}", flush=True)
        return None
    print(f"series {name} goes on from {path}, which descends from {origin}", flush=True)
    return held


def _from_export(workspace: Workspace, held: Held, origin: str) -> Start:
    export = held.export
    directory = workspace.export(export.key) / MERGED_FOLDER
    inside = f"{MERGED_FOLDER}/"
    files = tuple(
        replace(file, path=file.path.removeprefix(inside)) for file in export.files if file.path.startswith(inside)
    )
    rows = [("Export", export.key), ("Began with", origin)]
    sizes = {file.path: file.size for file in files}
    facts, page = describe_model(directory, str(directory), export.facts.get("license", ""), rows, sizes)
    model = Manifest(
        kind="model",
        key=content_key({"kind": "model", "export": export.key}),
        source=str(directory),
        revision=export.key,
        path=workspace.relative(directory),
        files=files,
        facts={**facts, "origin": origin, "start_from": LATEST, "hold": held.hold},
    )
    return Start(model, page)
