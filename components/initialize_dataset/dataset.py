"""Fetches a dataset and checks that it holds rows."""

from collections.abc import Mapping
from pathlib import Path

from kfp_finetune.datafiles import FORMATS, find_data_files
from kfp_finetune.errors import refuse
from kfp_finetune.fetch import fetch
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.source import open_source
from kfp_finetune.workspace import Manifest, open_workspace

WANTED = Patterns(allow=tuple(f"*{ending}" for ending in FORMATS))


def initialize_dataset(uri: str, workspace_root: str) -> Manifest:
    """Puts the data files of a source on the volume.

    Args:
        uri: A file, a directory, or a pattern such as /data/part-*.jsonl; see `FORMATS` for the endings.
        workspace_root: Absolute path of the mounted volume.

    Returns:
        What was published; its facts name the format and the splits.

    Raises:
        UserError: If there is no data file, one is empty, or the formats are mixed.
    """
    workspace = open_workspace(workspace_root)
    source = open_source("dataset", uri, WANTED)
    _check_names(uri, source.paths())
    return fetch(workspace, "dataset", workspace.dataset, source, WANTED, _facts)


def _check_names(uri: str, paths: list[str]) -> None:
    endings = {Path(path).suffix for path in paths}
    if not endings <= FORMATS.keys():
        raise refuse(
            "dataset",
            f"{uri}, a file that ends with {', '.join(sorted(endings)) or 'nothing'}",
            f"files that end with {', '.join(FORMATS)}",
            "Convert the file, or rename it if its content is one of these.",
        )


def _facts(directory: Path) -> Mapping[str, object]:
    empty = [path.name for path in directory.rglob("*") if path.is_file() and path.stat().st_size == 0]
    if empty:
        raise refuse(
            "dataset", f"empty files: {', '.join(sorted(empty)[:5])}", "files with rows", "Remove or fill them."
        )
    files = find_data_files(directory)
    return {"format": files.format, "splits": {split: len(paths) for split, paths in files.splits.items()}}
