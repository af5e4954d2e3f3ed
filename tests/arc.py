"""Rows in the columns of ai2_arc, the dataset of the tasks arc_easy and arc_challenge."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

ANSWERS = ("blue", "green", "red", "white")


def parquet(rows: Sequence[dict[str, object]]) -> bytes:
    """Rows as the bytes of a Parquet file."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file.getvalue()


def questions(number: int) -> list[dict[str, object]]:
    """Questions in the columns of ai2_arc."""
    return [
        {
            "id": f"question-{index}",
            "question": f"Which colour has number {index}?",
            "choices": {"text": list(ANSWERS), "label": ["A", "B", "C", "D"]},
            "answerKey": "ABCD"[index % 4],
        }
        for index in range(number)
    ]
