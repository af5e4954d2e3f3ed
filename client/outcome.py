"""What came of a run, as a short table."""

import os
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kfp_finetune.client.summary import RunSummary

LONGEST_TEXT = 400


def show_outcome(console: Console, summary: RunSummary) -> None:
    """Prints the losses and other figures, where the model and the report lie, and one answer of each model.

    Args:
        console: Where to print.
        summary: The run.
    """
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = [
        ("Held-out loss before", f"{summary.loss_before:.3f}"),
        ("Held-out loss after", f"{summary.loss_after:.3f}"),
        *(
            (f"Held-out {name.replace('_', ' ')}", f"{summary.figures_before[name]:.3f} before, {after:.3f} after")
            for name, after in summary.figures_after.items()
            if name in summary.figures_before
        ),
        ("Tokens per second", f"{summary.tokens_per_second:,.0f}"),
        ("Model", _short(summary.export)),
        ("Report", _short(summary.report)),
    ]
    if summary.prompt:
        rows += [
            ("Asked", summary.prompt),
            ("The base answers", summary.base_answer),
            ("The tuned model", summary.tuned_answer),
            ("In the data", summary.expected),
        ]
    for name, value in rows:
        table.add_row(name, escape(value if len(value) < LONGEST_TEXT else value[:LONGEST_TEXT] + " ..."))
    console.print()
    console.print(table)


def _short(path: Path) -> str:
    return min(str(path), os.path.relpath(path), key=len)
