"""What a dataset looks like to the model that is to be trained on it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from kfp_finetune.reports.charts import Bars, count_in_bars, histogram
from kfp_finetune.reports.numbers import number, share
from kfp_finetune.reports.page import Block, Chart, Facts, Samples, clip, page

SAMPLE_LIMIT = 2000
"""Characters of a sample's value that are kept."""


@dataclass(frozen=True)
class Data:
    """A dataset in figures, of a size that does not grow with it.

    Args:
        dataset: Its name or address.
        model: The model that reads the rows, whose tokenizer counted the tokens.
        max_seq_len: Tokens of a row that training will use; 0 for rows that are no text.
        facts: Counts and other facts, by their name.
        tokens: Rows, their tokens, quantiles of their lengths before any are cut, and what is cut off; empty for rows
            that are no text.
        lengths: How many rows have how many tokens.
        samples: A few rows, by column.
    """

    dataset: str
    model: str
    max_seq_len: int
    facts: Mapping[str, str | int]
    tokens: Mapping[str, int]
    lengths: Bars
    samples: Sequence[Mapping[str, str]]

    def to_json(self) -> str:
        """All of it as indented JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Data":
        """Reads what `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "lengths": Bars(**values["lengths"])})


def describe_data(
    *,
    dataset: str,
    model: str,
    lengths: Sequence[int],
    max_seq_len: int,
    facts: Mapping[str, str | int],
    samples: Sequence[Mapping[str, str]],
) -> Data:
    """Counts what there is to tell of a dataset.

    Args:
        dataset: Its name or address.
        model: The model that reads the rows, whose tokenizer counted the tokens.
        lengths: Tokens of each row, before any are cut.
        max_seq_len: Tokens of a row that training will use; 0 for rows that are no text.
        facts: Further facts, by their name.
        samples: A few rows of the dataset, by column; long values are cut.
    """
    return Data(
        dataset=dataset,
        model=model,
        max_seq_len=max_seq_len,
        facts=facts,
        tokens=_count_tokens(lengths, max_seq_len) if max_seq_len else {},
        lengths=count_in_bars(lengths, {"max_seq_len": max_seq_len}),
        samples=[{column: clip(value, SAMPLE_LIMIT) for column, value in sample.items()} for sample in samples],
    )


def data_report(data: Data, beside: Sequence[Block] = ()) -> str:
    """Render the report on a dataset.

    Args:
        data: From `describe_data`.
        beside: What else the page shows, before the sample rows.

    Returns:
        An HTML page.
    """
    of_model = f"{data.dataset}, in tokens of {data.model}" if data.max_seq_len else f"{data.dataset}, for {data.model}"
    return page("Training data", of_model, [*data_blocks(data), *beside, sample_rows(data)])


def data_blocks(data: Data) -> list[Block]:
    """The figures of a dataset, for a page of one's own.

    Args:
        data: From `describe_data`.
    """
    facts = [(name, value if isinstance(value, str) else number(value)) for name, value in data.facts.items()]
    return [*(_length_blocks(data) if data.max_seq_len else []), *([Facts("Dataset", facts)] if facts else [])]


def sample_rows(data: Data) -> Samples:
    """A few of its rows as a table.

    Args:
        data: From `describe_data`.
    """
    columns = list(dict.fromkeys(column for sample in data.samples for column in sample))
    return Samples("Sample rows", columns, [[sample.get(column, "") for column in columns] for sample in data.samples])


def quantile(ordered: Sequence[int], percent: int) -> int:
    """Find the smallest value that at least `percent` percent of the sorted, non-empty values do not exceed."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def _count_tokens(lengths: Sequence[int], max_seq_len: int) -> dict[str, int]:
    if not len(lengths):
        return {"rows": 0}
    ordered = sorted(lengths)
    return {
        "rows": len(ordered),
        "tokens": sum(ordered),
        **{f"p{percent}": quantile(ordered, percent) for percent in (50, 90, 99)},
        "longest": ordered[-1],
        "cut_rows": sum(length > max_seq_len for length in ordered),
        "lost_tokens": sum(max(0, length - max_seq_len) for length in ordered),
    }


def _length_blocks(data: Data) -> list[Block]:
    cut = "Tokens to the right of the dashed line are cut off and not trained on."
    return [
        Chart(
            "Length of the rows",
            histogram(data.lengths, "tokens", "rows", {"max_seq_len": data.max_seq_len}),
            cut if data.tokens.get("cut_rows") else "",
        ),
        Facts("Tokens", _length_facts(data.tokens, data.max_seq_len)),
    ]


def _length_facts(tokens: Mapping[str, int], max_seq_len: int) -> list[tuple[str, str]]:
    if not tokens["rows"]:
        return [("Rows", "0"), ("max_seq_len", number(max_seq_len))]
    cut, lost = tokens["cut_rows"], tokens["lost_tokens"]
    return [
        ("Rows", number(tokens["rows"])),
        ("Tokens", number(tokens["tokens"])),
        ("Median row (p50)", number(tokens["p50"])),
        ("p90", number(tokens["p90"])),
        ("p99", number(tokens["p99"])),
        ("Longest row (max)", number(tokens["longest"])),
        ("max_seq_len", number(max_seq_len)),
        ("Rows cut", f"{number(cut)} ({share(cut, tokens['rows'])})"),
        ("Tokens lost", f"{number(lost)} ({share(lost, tokens['tokens'])})"),
    ]
