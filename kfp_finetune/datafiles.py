"""Reads the rows of a dataset that lies on the volume."""

import errno
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_finetune.conversion import convert, no_room
from kfp_finetune.errors import UserError, refuse
from kfp_finetune.lines import small_text
from kfp_finetune.manifests import files_below, read_manifest
from kfp_finetune.readers import READERS, write_arrow
from kfp_finetune.sources.patterns import matches_glob

if TYPE_CHECKING:
    import datasets

FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
    ".xml": "xml",
}
"""The format for each ending of a file's name: one of `readers.READERS`, or what `tables.read_batches` reads."""

SAVED_STATE = "state.json"
SAVED_NOTES = frozenset({SAVED_STATE, "dataset_info.json", "dataset_dict.json"})
"""What `datasets.save_to_disk` writes beside the rows."""

SPLIT_FILES = "split_files"
"""The fact of a dataset's manifest that holds the patterns of each split, if its source declared them."""

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Words in a file's or folder's name that say which split it belongs to, as the Hugging Face Hub reads them."""


@dataclass(frozen=True)
class DataFiles:
    """The data files of a dataset.

    Args:
        format: One of the values of `FORMATS`.
        splits: Files of each split, sorted by name.
    """

    format: str
    splits: dict[str, tuple[Path, ...]]


def find_data_files(directory: Path, declared: Mapping[str, Sequence[str]] | None = None) -> DataFiles:
    """Finds the data files below a directory and the split that each belongs to.

    A file belongs to the split that its source declared, or that a word of its name, or of its folder's, says; else to
    "train". Of a directory that `datasets.save_to_disk` wrote, the files that its state names are taken, and not those
    of a later cache.

    Args:
        directory: A published dataset.
        declared: Patterns of the files of each split. Default: as the directory's manifest says.

    Raises:
        UserError: If there is none, or they need different readers.
    """
    found = [path for path in files_below(directory) if path.suffix in FORMATS]
    file_format, files = format_of(found), _without_notes(found)
    if declared is None:
        manifest = read_manifest(directory)
        declared = manifest.facts.get(SPLIT_FILES, {}) if manifest else {}
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(_split_of(path.relative_to(directory), declared), []).append(path)
    return DataFiles(file_format, {split: tuple(paths) for split, paths in sorted(splits.items())})


def format_of(paths: Iterable[Path]) -> str:
    """The one format of data files, of which those that `datasets.save_to_disk` writes beside the rows are none.

    Args:
        paths: Or names alone.

    Raises:
        UserError: If there is none, or they need different readers.
    """
    paths = list(paths)
    notes = SAVED_NOTES if any(path.suffix == ".arrow" for path in paths) else ()
    formats = {FORMATS[path.suffix] for path in paths if path.suffix in FORMATS and path.name not in notes}
    if len(formats) != 1:
        raise refuse(
            "dataset",
            f"files of the formats {', '.join(sorted(formats)) or 'none'}",
            f"files of one format, ending with {', '.join(FORMATS)}",
            "Choose those of one format by a pattern, such as /*.jsonl after the address, or allow_patterns.",
        )
    return formats.pop()


def _without_notes(files: list[Path]) -> list[Path]:
    if not any(path.suffix == ".arrow" for path in files):
        return files
    saved = {path.parent: _named_in(path) for path in files if path.name == SAVED_STATE}
    rows = [path for path in files if path.name not in SAVED_NOTES]
    return [path for path in rows if path.suffix != ".arrow" or path.name in saved.get(path.parent, {path.name})]


def _named_in(state: Path) -> set[str]:
    try:
        return {entry["filename"] for entry in json.loads(small_text("dataset", state))["_data_files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise refuse(
            "dataset",
            f"{state.name}, which does not name the files of a saved dataset: {error}",
            "a directory as datasets.save_to_disk writes it",
            "Save it again.",
        ) from error


def _split_of(path: Path, declared: Mapping[str, Sequence[str]]) -> str:
    for split, patterns in declared.items():
        if any(matches_glob(path.as_posix(), pattern) for pattern in patterns):
            return split
    words = re.split(r"[^a-z]+", path.with_suffix("").as_posix().lower())
    return next((SPLIT_WORDS[word] for word in reversed(words) if word in SPLIT_WORDS), "train")


@contextmanager
def open_split(directory: Path, split: str) -> Iterator["datasets.Dataset"]:
    """The rows of a split, for as long as the context lasts.

    Args:
        directory: A published dataset.
        split: A split's name, or a part of one as `datasets` writes it: "train[:10%]", "train[100:200]".

    Yields:
        The rows, memory-mapped from a temporary cache.

    Raises:
        UserError: If the split is not there, or the files cannot be read, or not within bounds of memory and disk.
    """
    import datasets

    files = find_data_files(directory)
    names = sorted({part.partition("[")[0] for part in split.split("+")})
    if not set(names) <= files.splits.keys():
        raise refuse(
            "split", repr(split), f"one of {', '.join(files.splits)}", "Name a split that the dataset's files have."
        )
    with tempfile.TemporaryDirectory(prefix="kfp-finetune-") as cache:
        datasets.disable_progress_bars()
        written = _write_arrow(files.format, {name: files.splits[name] for name in names}, Path(cache))
        yield _take(split, {name: datasets.Dataset.from_file(str(path)) for name, path in written.items()})


def _write_arrow(file_format: str, splits: Mapping[str, Sequence[Path]], cache: Path) -> dict[str, Path]:
    try:
        if file_format in READERS:
            written = write_arrow(READERS[file_format], splits, cache)
        else:
            written = convert(file_format, splits, cache)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise no_room(cache) from error
    return dict(zip(splits, written, strict=True))


def _take(split: str, rows: Mapping[str, "datasets.Dataset"]) -> "datasets.Dataset":
    """The rows that the name of a split, or of parts of splits, means."""
    import datasets

    try:
        parts = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(rows[name]) for name in rows})
    except ValueError as error:
        raise _no_part(split, str(error)) from error
    taken = [rows[part.splitname].select(range(part.from_, part.to)) for part in parts if part.from_ < part.to]
    if not taken:
        raise _no_part(split, "it has no row")
    return datasets.concatenate_datasets(taken)


def _no_part(split: str, why: str) -> UserError:
    return refuse(
        "split",
        f"{split!r}: {why}",
        "a split, or a part of one that has rows, such as train[:10%]",
        "Name other rows, or check that the files have any.",
    )
