"""Reads the rows of a dataset that lies on the volume."""

import glob
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_finetune.errors import refuse
from kfp_finetune.lines import small_text
from kfp_finetune.manifests import files_below, read_manifest
from kfp_finetune.readers import READERS, ROWS_IN_BATCH, write_arrow
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
"""The format for each ending of a file's name: one of `readers.READERS`, or what `datasets.load_dataset` reads."""

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
    files = _without_notes([path for path in files_below(directory) if path.suffix in FORMATS])
    formats = {FORMATS[path.suffix] for path in files}
    if len(formats) != 1:
        raise refuse(
            "dataset",
            f"files of the formats {', '.join(sorted(formats)) or 'none'}",
            f"files of one format, ending with {', '.join(FORMATS)}",
            "Give one folder or file of a single format.",
        )
    if declared is None:
        manifest = read_manifest(directory)
        declared = manifest.facts.get(SPLIT_FILES, {}) if manifest else {}
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(_split_of(path.relative_to(directory), declared), []).append(path)
    return DataFiles(formats.pop(), {split: tuple(paths) for split, paths in sorted(splits.items())})


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
        UserError: If the split is not there, or the files cannot be read.
    """
    import datasets

    files = find_data_files(directory)
    names = {part.partition("[")[0] for part in split.split("+")}
    if not names <= files.splits.keys():
        raise refuse(
            "split", repr(split), f"one of {', '.join(files.splits)}", "Name a split that the dataset's files have."
        )
    with tempfile.TemporaryDirectory(prefix="kfp-finetune-") as cache:
        datasets.disable_progress_bars()
        try:
            builder = _prepare(files.format, {name: files.splits[name] for name in names}, cache)
            try:
                rows = builder.as_dataset(split=split)
            except ValueError as error:
                raise refuse(
                    "split",
                    f"{split!r}: {error}",
                    "a split, or a part of one that has rows, such as train[:10%]",
                    "Name other rows, or check that the files have any.",
                ) from error
            yield rows
        except UnicodeDecodeError as error:
            raise refuse(
                "dataset", f"text that is not UTF-8: {error}", "files in UTF-8", "Convert the files to UTF-8."
            ) from error


def _prepare(file_format: str, splits: Mapping[str, Sequence[Path]], cache: str) -> "datasets.DatasetBuilder":
    if file_format in READERS:
        written = write_arrow(READERS[file_format], splits, Path(cache))
        file_format, splits = "arrow", {split: (path,) for split, path in zip(splits, written, strict=True)}
    elif file_format == "parquet":
        splits = {split: _with_rows(split, paths) for split, paths in splits.items()}
    try:
        return _read(file_format, splits, cache)
    except ValueError as error:
        paths = [path for part in splits.values() for path in part]
        broken = next((path.name for path in paths if _is_broken(file_format, path, cache)), None)
        raise refuse(
            "dataset",
            f"{f'{broken}, which' if broken else f'{file_format} files that together'} cannot be read: {error}",
            "files whose rows all have the same columns and types",
            "Mend the file." if broken else "Give every file the same columns and types.",
        ) from error


def _with_rows(split: str, paths: Sequence[Path]) -> list[Path]:
    kept = [path for path in paths if _has_rows(path)]
    if not kept:
        raise refuse("split", f"{split!r}, whose files have no row", "a split that has rows", "Fill the files.")
    return kept


def _has_rows(path: Path) -> bool:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(path).num_rows > 0
    except (ValueError, OSError):
        return True  # it is not Parquet; the reader says so


def _is_broken(file_format: str, path: Path, cache: str) -> bool:
    try:
        _read(file_format, {"train": (path,)}, cache)
    except ValueError:
        return True
    return False


def _read(file_format: str, splits: Mapping[str, Sequence[Path]], cache: str) -> "datasets.DatasetBuilder":
    """Reads files into the cache.

    Raises:
        ValueError: With the cause, if they cannot be read.
    """
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # else it calls huggingface's counter on the internet
    options = {"batch_size": ROWS_IN_BATCH} if file_format == "parquet" else {}  # else whole row groups are in memory
    data_files = {name: [glob.escape(str(path)) for path in paths] for name, paths in splits.items()}
    try:
        builder = datasets.load_dataset_builder(file_format, data_files=data_files, cache_dir=cache, **options)
        builder.download_and_prepare()
    except (datasets.exceptions.DatasetGenerationError, FileNotFoundError) as error:
        raise ValueError(str(error.__cause__ or error)) from error
    return builder
