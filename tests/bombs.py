"""Small Parquet files that stand for a lot."""

from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet


def one_value_for_all_rows(path: Path, rows: int = 256, size: int = 12_000_000) -> None:
    """Rows of one column, input, that share one text of so many characters."""
    value = pyarrow.array(["x" * size])
    table = pyarrow.table({"input": pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, "int32"), value)})
    pyarrow.parquet.write_table(table, path, compression="zstd")


def one_huge_list(path: Path) -> None:
    """A row whose one column, input, is a list of eighty million numbers."""
    numbers = pyarrow.array(numpy.zeros(80_000_000, numpy.int8))
    rows = pyarrow.ListArray.from_arrays([0, len(numbers)], numbers)
    pyarrow.parquet.write_table(pyarrow.table({"input": rows}), path, compression="zstd")
