"""Brings a source's files to the volume once, checked, whole and under a name made from what they are."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_finetune.errors import UserError, refuse
from kfp_finetune.manifests import MANIFEST_NAME, FileEntry, Manifest, files_below, is_intact, read_manifest, sha256_of
from kfp_finetune.progress import progress_printer
from kfp_finetune.publishing import Interrupted, SourceChanged, exclusive, resuming
from kfp_finetune.sources.source import Source
from kfp_finetune.workspace import Workspace, content_key


@dataclass(frozen=True)
class Wanted:
    """What to fetch, and how it is told apart from the rest.

    Args:
        kind: "dataset" or "model".
        source: Where the files are.
        chosen: What else decides which files are taken: JSON values, part of the key.
        accept: Looks at the names before anything is fetched; raises UserError if something is missing.
        check: Looks at the fetched files before they are published, may add some or remove some, and returns facts for
            the manifest.
    """

    kind: str
    source: Source
    chosen: Mapping[str, Any]
    accept: Callable[[Iterable[str]], None]
    check: Callable[[Path], Mapping[str, Any]]


def fetch(workspace: Workspace, wanted: Wanted, target_of: Callable[[str], Path], reuse: bool = True) -> Manifest:
    """Publishes a source's files on the volume, or finds them there.

    Args:
        workspace: The tree on the volume.
        wanted: What to fetch.
        target_of: Gives the directory for a key.
        reuse: Whether to take what is there already; else it is fetched again, and files that differ are replaced.

    Returns:
        The manifest of the published directory.

    Raises:
        Interrupted: If the source or the way to it failed, whoever must mend it; the next attempt goes on from there.
        UserError: If the source has nothing or changed, the volume has no room, or `wanted` refuses the files.
    """
    kind, source = wanted.kind, wanted.source
    revision = source.revision()
    key = content_key({"kind": kind, "origin": source.origin, "revision": revision, **wanted.chosen})
    target = target_of(key)
    with exclusive(target):
        known = read_manifest(target)
        if reuse and known is not None and is_intact(target, known):
            os.utime(target / MANIFEST_NAME)  # when it was last used, for `kfp_finetune.pruning`
            print(f"{kind} {source.uri} is on the volume already: {known.path}", flush=True)
            return known
        sizes = source.files()
        wanted.accept(sizes)
        with resuming(target) as staging:
            _check_space(source, sizes, staging)
            files = _copy(wanted, staging)
            _remove_others(files, staging)
            facts = wanted.check(staging)
            manifest = Manifest(
                kind=kind,
                key=key,
                source=source.uri,
                revision=revision,
                path=workspace.relative(target),
                files=_entries(files, staging),
                facts=facts,
            )
            (staging / MANIFEST_NAME).write_text(manifest.to_json())
    print(f"{kind} {source.uri}: {len(manifest.files)} files, {manifest.size:,} bytes at {manifest.path}", flush=True)
    return manifest


def _check_space(source: Source, sizes: Mapping[str, int], staging: Path) -> None:
    there = sum(path.stat().st_blocks * 512 for path in files_below(staging))
    needed = max(0, sum(sizes.values()) - there)
    free = shutil.disk_usage(staging).free
    if needed > free:
        raise refuse(
            "workspace",
            f"a volume with {free:,} bytes free, where {source.uri} needs {needed:,} more",
            "room for the whole source",
            "Enlarge the volume, free space on it, or keep fewer old entries (keep).",
        )


def _copy(wanted: Wanted, staging: Path) -> tuple[FileEntry, ...]:
    report: Callable[..., None] | None = None

    def on_bytes(done: int, total: int) -> None:
        nonlocal report
        report = report or progress_printer(f"fetch {wanted.kind}", total, "byte")
        report(done)

    try:
        return wanted.source.fetch(staging, on_bytes)
    except (Interrupted, SourceChanged):
        raise
    except UserError as error:  # a token that expired, a proxy that came up: the next attempt goes on from here
        raise Interrupted(error.problems) from error
    except OSError as error:
        free = shutil.disk_usage(staging).free
        raise refuse(
            "workspace",
            f"{error.strerror or error} while fetching {wanted.source.uri}; {free:,} bytes are free",
            "room for the whole source, and files that can be read",
            "Free space on the volume or enlarge it, then run again.",
        ) from error


def _remove_others(fetched: tuple[FileEntry, ...], staging: Path) -> None:
    """Removes what an attempt wrote beside the fetched files, such as half a report."""
    known = {file.path for file in fetched}
    for path in staging.rglob("*"):
        if not path.is_dir() and path.relative_to(staging).as_posix() not in known:
            path.unlink()


def _entries(fetched: tuple[FileEntry, ...], staging: Path) -> tuple[FileEntry, ...]:
    """What is there after the check: the fetched files that it left, and those that it wrote."""
    known = {file.path: file for file in fetched}
    paths = {path.relative_to(staging).as_posix(): path for path in files_below(staging)}
    return tuple(
        known.get(name) or FileEntry(name, path.stat().st_size, sha256_of(path)) for name, path in paths.items()
    )
