"""What a dataset looks like to the model that is to be trained on it."""

from collections.abc import Mapping, Sequence

from kfp_finetune.reports.charts import histogram
from kfp_finetune.reports.numbers import number, share
from kfp_finetune.reports.page import Block, Chart, Facts, Samples, page


def data_report(
    *,
    dataset: str,
    model: str,
    lengths: Sequence[int],
    max_seq_len: int,
    rows: Sequence[tuple[str, str]],
    samples: Sequence[Mapping[str, str]],
) -> str:
    """Render the report on a dataset.

    Args:
        dataset: Its name or address.
        model: The model that reads the rows, whose tokenizer counted the tokens.
        lengths: Tokens of each row, before any are cut.
        max_seq_len: Tokens of a row that training will use; 0 for rows that are no text.
        rows: Further facts, each a name with its value.
        samples: A few rows of the dataset, by column.

    Returns:
        An HTML page.
    """
    columns = list(dict.fromkeys(column for sample in samples for column in sample))
    return page(
        "Training data",
        f"{dataset}, in tokens of {model}" if max_seq_len else f"{dataset}, for {model}",
        [
            *(_length_blocks(lengths, max_seq_len) if max_seq_len else []),
            *([Facts("Dataset", rows)] if rows else []),
            Samples("Sample rows", columns, [[sample.get(column, "") for column in columns] for sample in samples]),
        ],
    )


def quantile(ordered: Sequence[int], percent: int) -> int:
    """Find the smallest value that at least `percent` percent of the sorted, non-empty values do not exceed."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def _length_blocks(lengths: Sequence[int], max_seq_len: int) -> list[Block]:
    return [
        Chart(
            "Length of the rows",
            histogram(lengths, "tokens", "rows", {"max_seq_len": max_seq_len}),
            "Tokens to the right of the dashed line are cut off and not trained on."
            if max(lengths, default=0) > max_seq_len
            else "",
        ),
        Facts("Tokens", _length_facts(lengths, max_seq_len)),
    ]


def _length_facts(lengths: Sequence[int], max_seq_len: int) -> list[tuple[str, str]]:
    if not len(lengths):
        return [("Rows", "0"), ("max_seq_len", number(max_seq_len))]
    ordered = sorted(lengths)
    cut = sum(length > max_seq_len for length in ordered)
    total = sum(ordered)
    lost = sum(max(0, length - max_seq_len) for length in ordered)
    return [
        ("Rows", number(len(ordered))),
        ("Tokens", number(total)),
        ("Median row (p50)", number(quantile(ordered, 50))),
        ("p90", number(quantile(ordered, 90))),
        ("p99", number(quantile(ordered, 99))),
        ("Longest row (max)", number(ordered[-1])),
        ("max_seq_len", number(max_seq_len)),
        ("Rows cut", f"{number(cut)} ({share(cut, len(ordered))})"),
        ("Tokens lost", f"{number(lost)} ({share(lost, total)})"),
    ]
