"""Reads the rows of a dataset that lies on the volume."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_finetune.errors import refuse
from kfp_finetune.workspace import files_below

if TYPE_CHECKING:
    import datasets

FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
"""The reader of `datasets.load_dataset` for each ending of a file's name."""

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
        format: The reader: "json", "csv" or "parquet".
        splits: Files of each split, sorted by name.
    """

    format: str
    splits: dict[str, tuple[Path, ...]]


def find_data_files(directory: Path) -> DataFiles:
    """Finds the data files below a directory and the split that each belongs to.

    A file belongs to the split that a word of its name, or of its folder's, says; else to "train".

    Args:
        directory: A published dataset.

    Raises:
        UserError: If there is none, or they need different readers.
    """
    files = [path for path in files_below(directory) if path.suffix in FORMATS]
    formats = {FORMATS[path.suffix] for path in files}
    if len(formats) != 1:
        raise refuse(
            "dataset",
            f"files of the formats {', '.join(sorted(formats)) or 'none'}",
            f"files of one format, ending with {', '.join(FORMATS)}",
            "Give one folder or file of a single format.",
        )
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(_split_of(path.relative_to(directory)), []).append(path)
    return DataFiles(formats.pop(), {split: tuple(paths) for split, paths in sorted(splits.items())})


def _split_of(path: Path) -> str:
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
    name = split.partition("[")[0]
    if name not in files.splits:
        raise refuse(
            "split", repr(split), f"one of {', '.join(files.splits)}", "Name a split that the dataset's files have."
        )
    with tempfile.TemporaryDirectory(prefix="kfp-finetune-") as cache:
        datasets.disable_progress_bars()
        try:
            rows = datasets.load_dataset(
                files.format, data_files={name: [str(path) for path in files.splits[name]]}, split=split, cache_dir=cache
            )
        except (datasets.exceptions.DatasetGenerationError, ValueError) as error:
            cause = error.__cause__ or error
            raise refuse(
                "dataset",
                f"{files.format} files that cannot be read: {cause}",
                "files whose rows all have the same columns and types",
                "Open the file that the message names and mend it.",
            ) from error
        yield rows
