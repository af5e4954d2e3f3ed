"""What a dataset looks like before any model has seen it."""

from collections.abc import Mapping, Sequence

from kfp_finetune.reports.charts import count_in_bars, histogram
from kfp_finetune.reports.data import quantile
from kfp_finetune.reports.numbers import number, share
from kfp_finetune.reports.page import Block, Chart, Facts, Note, Samples, page


def dataset_report(
    *,
    dataset: str,
    facts: Sequence[tuple[str, str]],
    rows: Mapping[str, int],
    is_complete: bool,
    lengths: Sequence[int],
    empty: Mapping[str, int],
    duplicates: int,
    samples: Sequence[Mapping[str, str]],
    problem: str = "",
) -> str:
    """Render the report on a dataset's rows.

    Args:
        dataset: Its name or address.
        facts: Where it came from, each a name with its value.
        rows: Rows by split.
        is_complete: Whether these are all rows.
        lengths: Characters of each row.
        empty: Rows that have nothing in a column, by column.
        duplicates: Rows that are equal to an earlier one.
        samples: A few rows, by column.
        problem: Why the rows could not be read to their end; empty if they could.

    Returns:
        An HTML page.
    """
    total = sum(rows.values())
    looked = "Rows" if is_complete else "Rows looked at, of more"
    counts = [(f"{looked}, {split}", number(count)) for split, count in rows.items()]
    columns = list(empty)
    blocks: list[Block] = [Note("The rows cannot be read", problem, alarm=True)] if problem else []
    blocks += [
        Facts("Rows", [*counts, ("Equal to an earlier row", f"{number(duplicates)} ({share(duplicates, total)})")]),
        Chart("Length of the rows", histogram(count_in_bars(lengths, {}), "characters", "rows", {})),
        *([Facts("Characters of a row", _length_facts(lengths))] if len(lengths) else []),
        Samples(
            "Columns",
            ["Column", "Rows with nothing in it"],
            [[column, f"{number(count)} ({share(count, total)})"] for column, count in empty.items()],
        ),
        Samples("First rows", columns, [[sample.get(column, "") for column in columns] for sample in samples]),
        Facts("Source", facts),
    ]
    return page("Dataset", dataset, blocks)


def _length_facts(lengths: Sequence[int]) -> list[tuple[str, str]]:
    ordered = sorted(lengths)
    return [
        ("Shortest", number(ordered[0])),
        ("Median (p50)", number(quantile(ordered, 50))),
        ("p99", number(quantile(ordered, 99))),
        ("Longest", number(ordered[-1])),
    ]
