"""Short rows in one long sequence, so that little is padded."""

from collections.abc import Sequence

import datasets
import pyarrow.compute as pc


def row_lengths(rows: datasets.Dataset, column: str = "tokens") -> list[int]:
    """Tokens of each row, counted without reading them.

    Args:
        rows: With the column.
        column: The one with the tokens.
    """
    return pc.list_value_length(rows.data.column(column)).to_pylist()


def pair_lengths(rows: datasets.Dataset) -> list[int]:
    """Tokens of the longer side of each pair, counted without reading them.

    Args:
        rows: Pairs of answers.
    """
    sides = (row_lengths(rows, column) for column in ("tokens", "rejected_tokens"))
    return [max(pair) for pair in zip(*sides, strict=True)]


def pack_rows(lengths: Sequence[int], max_seq_len: int) -> list[list[int]]:
    """Puts rows, in order, into sequences of at most a length.

    Args:
        lengths: Of each row, in tokens; none longer than `max_seq_len`.
        max_seq_len: Tokens in a sequence.

    Returns:
        The indices of the rows of each sequence.
    """
    packs: list[list[int]] = []
    room = 0
    for index, length in enumerate(lengths):
        if length > room:
            packs.append([])
            room = max_seq_len
        packs[-1].append(index)
        room -= length
    return packs
