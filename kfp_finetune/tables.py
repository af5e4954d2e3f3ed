"""Parquet and Arrow files as batches of rows, with no more of a file in memory than a batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.lines import MOST_COLUMNS
from kfp_finetune.readers import ROWS_IN_BATCH

if TYPE_CHECKING:
    import datasets

MOST_ROWS_AT_ONCE = 1000

BATCH_BYTES = 16 * 2**20
"""Of rows that are large, fewer are read at once."""

READ_BYTES = 2**20
"""Of a file, at a time; else a whole row group is in memory before its first row."""


def read_batches(file_format: str, path: Path) -> Iterator[Any]:
    """The rows of a file, some at a time.

    Args:
        file_format: "parquet" or "arrow".
        path: The file.

    Yields:
        Record batches of at least one row.

    Raises:
        ValueError: If the file cannot be read.
        OSError: The same.
        MemoryError: If a page of it, or what a batch stands for, does not fit.
    """
    return _parquet(path) if file_format == "parquet" else _arrow(path)


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as file:
        _check_columns(file.metadata.num_columns)
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            at_once = _rows_at_once(group.num_rows, group.total_byte_size)
            batches = file.iter_batches(at_once, row_groups=[number], use_threads=False)
            yield from (_checked(batch) for batch in batches if batch.num_rows)


def _arrow(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        for batch in _written_batches(source):
            _check_columns(batch.num_columns)
            at_once = _rows_at_once(batch.num_rows, _checked(batch).nbytes)
            yield from (batch.slice(start, at_once) for start in range(0, batch.num_rows, at_once))


def _check_columns(count: int) -> None:
    if count > MOST_COLUMNS:
        raise ValueError(f"{count:,} columns where at most {MOST_COLUMNS:,} are allowed")


def _checked(batch: Any) -> Any:
    """A batch whose text is UTF-8, and whose offsets do not point at what lies elsewhere in memory."""
    batch.validate(full=True)
    return batch


def _rows_at_once(rows: int, size: int) -> int:
    """How many of so many rows, of so many bytes together, are a batch."""
    return max(1, min(ROWS_IN_BATCH, BATCH_BYTES * rows // max(size, 1)))


def rows_at_once(rows: "datasets.Dataset") -> int:
    """How many rows are taken into memory together: fewer where they are large.

    Args:
        rows: What is read.
    """
    batches = [batch for batch in rows.data.to_batches() if batch.num_rows]
    largest = max((batch.nbytes / batch.num_rows for batch in batches), default=0)
    return max(1, min(MOST_ROWS_AT_ONCE, int(BATCH_BYTES / max(largest, 1))))


def _written_batches(source: Any) -> Iterator[Any]:
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
