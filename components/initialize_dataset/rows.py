"""Rows of data files, one after the other, with no more of a file in memory than a batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfp_finetune.readers import READERS, ROWS_IN_BATCH

READ_BYTES = 2**20
"""Of a file, at a time; else a whole row group is in memory before its first row."""

BATCH_BYTES = 16 * 2**20
"""Of rows that are large, fewer are read at once."""


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
        return READERS[file_format](path)
    return _parquet(path) if file_format == "parquet" else _arrow(path)


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as file:
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            at_once = _rows_at_once(group.num_rows, group.total_byte_size)
            for batch in file.iter_batches(at_once, row_groups=[number], use_threads=False):
                yield from batch.to_pylist()


def _arrow(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        for batch in _batches(source):
            at_once = _rows_at_once(batch.num_rows, batch.nbytes)
            for start in range(0, batch.num_rows, at_once):
                yield from batch.slice(start, at_once).to_pylist()


def _rows_at_once(rows: int, size: int) -> int:
    """How many of so many rows, of so many bytes together, are a batch."""
    return max(1, min(ROWS_IN_BATCH, BATCH_BYTES * rows // max(size, 1)))


def _batches(source: Any) -> Iterator[Any]:
    """The batches of the stream format, which `datasets` writes, or of the file format."""
    import pyarrow as pa

    try:
        stream = pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        source.seek(0)
        file = pa.ipc.open_file(source)
        yield from (file.get_batch(number) for number in range(file.num_record_batches))
    else:
        yield from stream
