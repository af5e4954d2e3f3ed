"""Fetches a dataset and looks at its rows."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kfp_finetune.components.initialize_dataset.bounded import look_within_bounds
from kfp_finetune.datafiles import FORMATS, SPLIT_FILES, find_data_files, format_of
from kfp_finetune.errors import refuse
from kfp_finetune.fetch import Wanted, fetch
from kfp_finetune.manifests import Manifest, files_below
from kfp_finetune.pruning import prune
from kfp_finetune.reports.dataset import dataset_report
from kfp_finetune.sources.huggingface import HubSource
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.s3_client import S3Options
from kfp_finetune.sources.source import Source, open_source
from kfp_finetune.workspace import FETCH_REPORT_NAME, open_workspace

WANTED = Patterns(allow=tuple(f"*{ending}" for ending in FORMATS), ignore=("dataset_infos.json",))
"""Files with rows; `dataset_infos.json` is what old repositories say about themselves."""


def initialize_dataset(
    uri: str,
    workspace_root: str,
    *,
    config: str = "",
    allow_patterns: Sequence[str] = (),
    ignore_patterns: Sequence[str] = (),
    reuse: bool = True,
    keep: int = 0,
    s3: S3Options | None = None,
) -> Manifest:
    """Puts the data files of a source on the volume.

    Args:
        uri: A path, hf://ORGANISATION/NAME or s3://BUCKET/PREFIX, or a pattern of files below one, such as
            /data/part-*.jsonl; see `open_source`, and `FORMATS` for the endings.
        workspace_root: Absolute path of the mounted volume.
        config: The configuration of a Hub dataset; empty for its default one.
        allow_patterns: Files to take instead of those with the endings of `FORMATS`.
        ignore_patterns: Files to leave out of them.
        reuse: Whether to take what is on the volume already; else it is fetched again, and what differs is mended.
        keep: How many revisions of this source to keep on the volume; 0 for all.
        s3: How S3 is reached.

    Returns:
        What was published; its facts name the format, the splits and what a look at the rows found.

    Raises:
        UserError: If there is no data file, one is empty, or the formats are mixed.
    """
    workspace = open_workspace(workspace_root)
    patterns = WANTED.changed(allow_patterns, ignore_patterns)
    source = open_source("dataset", uri, patterns, s3=s3, config=config)
    wanted = Wanted(
        kind="dataset",
        source=source,
        chosen={"patterns": [patterns.allow, patterns.ignore], "config": config},
        accept=lambda names: _check_names(uri, names),
        check=lambda directory: _facts(directory, source),
    )
    manifest = fetch(workspace, wanted, workspace.dataset, reuse)
    prune(workspace, manifest, keep)
    return manifest


def _check_names(uri: str, names: Iterable[str]) -> None:
    paths = [Path(name) for name in names]
    endings = {path.suffix for path in paths}
    if not endings <= FORMATS.keys():
        raise refuse(
            "dataset",
            f"{uri}, a file that ends with {', '.join(sorted(endings)) or 'nothing'}",
            f"files that end with {', '.join(FORMATS)}",
            "Convert the file, or rename it if its content is one of these.",
        )
    format_of(paths)


def _facts(directory: Path, source: Source) -> Mapping[str, object]:
    empty = [path.name for path in files_below(directory) if path.stat().st_size == 0]
    if empty:
        raise refuse(
            "dataset", f"empty files: {', '.join(sorted(empty)[:5])}", "files with rows", "Remove or fill them."
        )
    declared = source.splits() if isinstance(source, HubSource) else {}
    files = find_data_files(directory, declared)
    look = look_within_bounds(files)
    if look.problem:
        print(f"the rows of {source.uri} cannot be looked at: {look.problem}", flush=True)
    report = dataset_report(
        dataset=source.uri,
        facts=[("Address", source.uri), ("Revision", source.revision()), ("Format", files.format)],
        rows=look.rows,
        is_complete=look.is_complete,
        lengths=look.lengths,
        empty=look.empty,
        duplicates=look.duplicates,
        samples=look.samples,
        problem=look.problem,
    )
    (directory / FETCH_REPORT_NAME).write_text(report)
    return {
        "format": files.format,
        "splits": {split: len(paths) for split, paths in files.splits.items()},
        **({SPLIT_FILES: declared} if declared else {}),
        "columns": ", ".join(look.empty),
        "rows": sum(look.rows.values()),
        "all_rows": look.is_complete,
        "duplicates": look.duplicates,
        "rows_with_empty_values": look.with_empty,
    }
