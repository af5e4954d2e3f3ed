"""Parquet and Arrow files written anew, as plain Arrow that can be mapped, by a process whose memory is bounded."""

import errno
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.bounded import answer, ask
from kfp_finetune.errors import Problem, UserError, refuse
from kfp_finetune.tables import read_batches

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY_BYTES = 2 * 2**30
"""Enough for a page of Parquet of a gigabyte, which is in memory whole; most writers' are of a megabyte."""

SHARE_OF_FREE_BYTES = 0.9
"""Of the temporary directory; the tokens go there too, and a machine whose disk is full ends its pods."""


def convert(file_format: str, splits: Mapping[str, Sequence[Path]], target: Path) -> list[Path]:
    """Writes files as Arrow, each split as one; every row has the columns and types of the first.

    Args:
        file_format: "parquet" or "arrow".
        splits: The files of each split.
        target: Directory to write SPLIT.arrow to.

    Returns:
        The written files, in the order of the splits.

    Raises:
        UserError: If a file cannot be read, or not within `MEMORY_BYTES`, the rows do not fit together, or there is no
            row in any or no room for them.
    """
    named = {split: [str(path) for path in paths] for split, paths in splits.items()}
    try:
        problems = ask(__name__, {"format": file_format, "splits": named, "target": str(target)})
    except MemoryError as error:
        raise _too_large(f"{file_format} files") from error
    if problems:
        raise UserError([Problem(**problem) for problem in problems])
    return [target / f"{split}.arrow" for split in splits]


def no_room(target: Path) -> UserError:
    """The error for a temporary directory that is too small for the rows.

    Args:
        target: In it.
    """
    free = shutil.disk_usage(target).free
    return refuse(
        "dataset",
        f"rows that take more room, as they are read, than there is at {target.parent}; {free:,} bytes are left",
        "rows for which there is room",
        "Give the step a larger temporary directory (TMPDIR), or choose fewer files.",
    )


def _convert(asked: Any) -> Any:
    """What the process does; gives the problems."""
    splits = {split: tuple(map(Path, paths)) for split, paths in asked["splits"].items()}
    try:
        _write(asked["format"], splits, Path(asked["target"]))
    except UserError as error:
        return [vars(problem) for problem in error.problems]
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return [vars(problem) for problem in no_room(Path(asked["target"])).problems]
    return []


def _write(file_format: str, splits: Mapping[str, Sequence[Path]], target: Path) -> None:
    import pyarrow as pa

    schema = _schema(file_format, splits)
    left = SHARE_OF_FREE_BYTES * shutil.disk_usage(target).free
    for split, paths in splits.items():
        with pa.ipc.new_stream(target / f"{split}.arrow", schema) as stream:
            for table in _tables(file_format, paths, schema):
                left -= table.nbytes
                if left < 0:
                    raise no_room(target)
                stream.write_table(table)


def _schema(file_format: str, splits: Mapping[str, Sequence[Path]]) -> "pa.Schema":
    """The columns and types of the first row, as `datasets` has them."""
    import datasets

    for path in (path for paths in splits.values() for path in paths):
        for batch in _batches(file_format, path):
            try:
                return datasets.Features.from_arrow_schema(_without_views(batch.schema)).arrow_schema
            except ValueError as error:
                raise _unreadable(path, error) from error
    raise refuse("split", f"{', '.join(splits)!r}, whose files have no row", "a split that has rows", "Fill the files.")


def _without_views(schema: "pa.Schema") -> "pa.Schema":
    """A schema whose text lies row by row: a part of a view is written with the text of all its rows."""
    import pyarrow as pa

    fields = [field.with_type(_without_view(field.type)) for field in schema]
    return pa.schema(fields, schema.metadata)


def _without_view(kind: "pa.DataType") -> "pa.DataType":
    import pyarrow as pa

    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_view(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_without_view(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_without_view(kind.value_type))
    return kind


def _tables(file_format: str, paths: Sequence[Path], schema: "pa.Schema") -> Iterator["pa.Table"]:
    import pyarrow as pa
    from datasets.table import table_cast

    for path in paths:
        for batch in _batches(file_format, path):
            try:
                table = table_cast(pa.Table.from_batches([batch]), schema)
            except MemoryError as error:
                raise _too_large(path.name) from error
            except (ValueError, TypeError, NotImplementedError) as error:
                raise refuse(
                    "dataset",
                    f"{file_format} files that together cannot be read: {path.name}: {error}",
                    "files whose rows all have the same columns and types",
                    "Give every file the same columns and types.",
                ) from error
            yield table


def _batches(file_format: str, path: Path) -> Iterator["pa.RecordBatch"]:
    try:
        yield from read_batches(file_format, path)
    except MemoryError as error:
        raise _too_large(path.name) from error
    except (ValueError, OSError, NotImplementedError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return refuse(
        "dataset",
        f"{path.name}, which cannot be read: {error}",
        "files whose rows all have the same columns and types",
        "Mend the file.",
    )


def _too_large(what: str) -> UserError:
    return refuse(
        "dataset",
        f"{what} with rows that need more than {MEMORY_BYTES:,} bytes of memory to read",
        "rows that need less, 256 of them at a time",
        "Write the file again with smaller row groups or rows.",
    )


if __name__ == "__main__":
    import datasets  # noqa: F401  before memory is counted

    answer(_convert, MEMORY_BYTES)
