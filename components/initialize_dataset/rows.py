"""Rows of data files, one after the other, with no more of a file in memory than a batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfp_finetune.readers import READERS
from kfp_finetune.tables import read_batches


def iterate_rows(file_format: str, path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one file.

    Args:
        file_format: One of the values of `kfp_finetune.datafiles.FORMATS`.
        path: The file.

    Yields:
        A row by column.

    Raises:
        UserError: If a file of text cannot be read, with the line.
        ValueError: If a parquet or arrow file cannot be read.
    """
    if file_format in READERS:
        yield from READERS[file_format](path)
    else:
        for batch in read_batches(file_format, path):
            yield from batch.to_pylist()
