"""A report as tables for a person, or as JSON for a program."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kfp_finetune.client.doctor.report import RIGHT, Check, Report, State

STYLES = {State.PASS: "green", State.WARN: "yellow", State.FAIL: "red"}


def report_as_json(report: Report) -> str:
    """The report as one JSON object, with `ok` beside what `Report` holds.

    Args:
        report: What was found.
    """
    return json.dumps({"ok": report.ok, **asdict(report)}, indent=2)


def show_report(console: Console, report: Report) -> None:
    """Prints the runtimes, the storage classes, the checks, and each mend once.

    Args:
        console: Where to print.
        report: What was found.
    """
    _show(
        console,
        ("Runtime", "Kind", "Fits a training"),
        [(one.name, one.kind, f"no: {one.unfit}" if one.unfit else "yes") for one in report.runtimes],
    )
    _show(
        console,
        ("Storage class", "Default", "Binds", "Access modes"),
        [(one.name, "yes" if one.default else "", one.binding, one.access_modes) for one in report.storage_classes],
    )
    _show(
        console,
        ("", "Check", "Found"),
        [(one.state, one.name, one.found) for one in report.checks],
        [STYLES[one.state] for one in report.checks],
    )
    if sum(check.name == RIGHT for check in report.checks) > 1:
        console.print("All rights at once, from this library's sources; see manifests/README.md:")
        console.print("     kubectl apply -k manifests/rbac/overlays/pipeline-runner", soft_wrap=True)
    mends: dict[str, Check] = {}
    for check in report.checks:
        if check.mend:
            mends.setdefault(check.mend, check)
    for mend, check in mends.items():
        console.print(f"[{STYLES[check.state]}]{check.state}[/] {escape(f'{check.name}: {check.found}')}")
        # Unwrapped, so that a command can be copied.
        console.print(f"     {escape(mend)}", soft_wrap=True)


def _show(console: Console, columns: Sequence[str], rows: Sequence[Iterable[str]], styles: Sequence[str] = ()) -> None:
    if not rows:
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for number, (first, *rest) in enumerate(rows):
        cell = f"[{styles[number]}]{escape(first)}[/]" if styles else escape(first)
        table.add_row(cell, *map(escape, rest))
    console.print(table)
    console.print()
