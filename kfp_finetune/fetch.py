"""Brings a source's files to the volume once, checked, whole and under a name made from what they are."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kfp_finetune.errors import refuse
from kfp_finetune.progress import progress_printer
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.source import Source
from kfp_finetune.workspace import (
    MANIFEST_NAME,
    Manifest,
    Workspace,
    content_key,
    describe_files,
    exclusive,
    is_intact,
    publishing,
    read_manifest,
)


def fetch(
    workspace: Workspace,
    kind: str,
    target_of: Callable[[str], Path],
    source: Source,
    patterns: Patterns,
    check: Callable[[Path], Mapping[str, Any]],
) -> Manifest:
    """Publishes a source's files on the volume, or finds them there.

    Args:
        workspace: The tree on the volume.
        kind: "dataset" or "model".
        target_of: Gives the directory for a key.
        source: Where the files are.
        patterns: Which of them are wanted; part of the key.
        check: Looks at the fetched files before they are published and returns facts for the manifest.

    Returns:
        The manifest of the published directory.

    Raises:
        UserError: If the source has nothing, the volume is full, or `check` refuses the files.
    """
    revision = source.revision()
    key = content_key({"kind": kind, "revision": revision, "patterns": [patterns.allow, patterns.ignore]})
    target = target_of(key)
    with exclusive(target):
        known = read_manifest(target)
        if known is not None and is_intact(target, known):
            print(f"{kind} {source.uri} is on the volume already: {known.path}", flush=True)
            return known
        with publishing(target) as staging:
            _copy(kind, source, staging)
            files = describe_files(staging)
            if not source.holds(files):
                raise refuse(
                    kind,
                    f"{source.uri}, whose files changed while they were fetched",
                    "files that stay as they are",
                    "Run again once nothing writes there.",
                )
            manifest = Manifest(
                kind=kind,
                key=key,
                source=source.uri,
                revision=revision,
                path=workspace.relative(target),
                files=files,
                facts=check(staging),
            )
            (staging / MANIFEST_NAME).write_text(manifest.to_json())
    print(f"{kind} {source.uri}: {len(manifest.files)} files, {manifest.size:,} bytes at {manifest.path}", flush=True)
    return manifest


def _copy(kind: str, source: Source, staging: Path) -> None:
    report: Callable[..., None] | None = None

    def on_bytes(done: int, total: int) -> None:
        nonlocal report
        report = report or progress_printer(f"fetch {kind}", total, "byte")
        report(done)

    try:
        source.fetch(staging, on_bytes)
    except OSError as error:
        free = shutil.disk_usage(staging).free
        raise refuse(
            "workspace",
            f"{error.strerror or error} while fetching {source.uri}; {free:,} bytes are free",
            "room for the whole source, and files that can be read",
            "Free space on the volume or enlarge it, then run again.",
        ) from error
