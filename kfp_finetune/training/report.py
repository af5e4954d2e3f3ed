"""The report on a whole run: one page with what a training came to, how it went, on what, and where."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kfp_finetune.metrics import METRICS_NAME, read_metrics
from kfp_finetune.reports.data import Data, data_blocks, sample_rows
from kfp_finetune.reports.evaluation import (
    Compared,
    answers,
    benchmarks_table,
    epochs_chart,
    figures_table,
    verdict,
)
from kfp_finetune.reports.numbers import number
from kfp_finetune.reports.page import Block, Facts, Note, Part, page
from kfp_finetune.reports.training import training_blocks
from kfp_finetune.sources.redaction import redact
from kfp_finetune.training.environment import read_environment
from kfp_finetune.training.plan import DATA_NAME, SETTINGS_NAME, Plan
from kfp_finetune.training.result import RESULT_NAME, read_result
from kfp_finetune.training.summary import facts


def run_report(plan: Plan, training: Path, evaluation: Mapping[str, Any]) -> str:
    """Render the report on a run from what its steps left; what is absent is left out.

    Args:
        plan: The training.
        training: Its folder.
        evaluation: What its evaluation.json says, or is about to; empty if there is none. Its key `figure` names the
            figure that matters most, `benchmarks` has `base`, `tuned` and `stderr` by task and figure.

    Returns:
        An HTML page.
    """
    of_rows, of_tasks = _figures(evaluation), _benchmarks(evaluation)
    data, samples = _read_data(training), evaluation.get("samples", [])
    metrics = read_metrics(training / METRICS_NAME)
    count = plan.held_out.get("given_rows") or plan.held_out.get("rows")
    rows = f"{count:,} held-out rows" if count else "the held-out rows"
    parts: list[Block | Part] = [verdict([*of_rows, *of_tasks], rows)] if of_rows else []
    parts += [
        Facts("Run", [(name, redact(value)) for name, value in facts(plan)], is_wide=True),
        *_part(
            "Result",
            [
                *([figures_table("Held-out rows", of_rows, _compared(plan, evaluation, rows))] if of_rows else []),
                *([benchmarks_table(of_tasks)] if of_tasks else []),
                *([answers(samples)] if samples else []),
                *_epochs(evaluation),
            ],
        ),
        *_part("Training", training_blocks(metrics, _measured(training)) if metrics else []),
        *_part("Data", [*data_blocks(data), *([] if samples else [sample_rows(data)])] if data else []),
        *_part("Settings and environment", [*_settings(training), *_environment(training)]),
    ]
    if not of_rows:
        parts.insert(0, Note("Not evaluated", "Base and tuned model were not compared on held-out rows."))
    return page(f"Fine-tuning of {redact(plan.base)}", redact(plan.dataset), parts)


def _part(title: str, blocks: Sequence[Block]) -> list[Part]:
    return [Part(title, blocks)] if blocks else []


def _figures(evaluation: Mapping[str, Any]) -> list[Compared]:
    """What was measured on the held-out rows, of both models, what matters most first."""
    before, after = (
        {
            "loss": evaluation.get(f"loss_{when}"),
            "perplexity": evaluation.get(f"perplexity_{when}"),
            **evaluation.get(f"figures_{when}", {}),
        }
        for when in ("before", "after")
    )
    names = sorted(after, key=lambda name: name != evaluation.get("figure"))
    return [Compared(name, before[name], after[name]) for name in names if _are_numbers(before.get(name), after[name])]


def _benchmarks(evaluation: Mapping[str, Any]) -> list[Compared]:
    return [
        Compared(name, found["base"], found["tuned"], found.get("stderr"), task)
        for task, figures in evaluation.get("benchmarks", {}).items()
        for name, found in figures.items()
        if _are_numbers(found.get("base"), found.get("tuned"))
    ]


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not math.isnan(value) for value in values)


def _compared(plan: Plan, evaluation: Mapping[str, Any], rows: str) -> str:
    tokens = f", {number(evaluation['tokens'])} tokens" if evaluation.get("tokens") else ""
    epoch = evaluation.get("epoch", "")
    exported = f" The tuned model is epoch {_number(epoch)} of {plan.epochs}." if epoch else ""
    return f"On {rows}{tokens}, which were not trained on.{exported}"


def _epochs(evaluation: Mapping[str, Any]) -> Iterator[Block]:
    """How the figures of the held-out rows went from epoch to epoch, where more than one was measured."""
    losses = evaluation.get("epoch_losses", {})
    epochs = evaluation.get("epochs") or {name: {"loss": loss} for name, loss in losses.items()}
    if len(epochs) < 2:
        return
    for figure in _figures(evaluation):
        values = {_number(name): found[figure.name] for name, found in epochs.items() if figure.name in found}
        if values:
            yield epochs_chart(figure.name, figure.base, dict(sorted(values.items())))


def _number(epoch: str) -> int:
    """Of an epoch's folder, counted from 1."""
    return int(epoch.removeprefix("epoch_")) + 1


def _measured(training: Path) -> list[tuple[str, str]]:
    """What only the end of a training tells."""
    if not (training / RESULT_NAME).exists():
        return []
    result = read_result(training)
    memory = f"{number(result.peak_memory_gib)} GiB" if result.peak_memory_gib else ""
    rows = [("Tokens read", number(result.tokens)), ("Peak memory of any process", memory)]
    return [(name, value) for name, value in rows if value]


def _read_data(training: Path) -> Data | None:
    with suppress(FileNotFoundError):
        return Data.from_json((training / DATA_NAME).read_text())
    return None


def _settings(training: Path) -> list[Block]:
    with suppress(FileNotFoundError):
        settings = json.loads((training / SETTINGS_NAME).read_text())
        rows = [(name, redact(_shown(value))) for name, value in settings.items() if value not in ("", {}, [], None)]
        return [Facts("Settings", rows, is_wide=True)]
    return []


def _shown(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _environment(training: Path) -> list[Block]:
    environment = read_environment(training)
    return [Facts("Environment", environment.facts(), is_wide=True)] if environment else []
