"""What a training would need of a GPU, told from the model's config.json and the settings alone."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kfp_finetune.client.checks import torchtune
from kfp_finetune.client.given import read_given
from kfp_finetune.client.packages import DEFAULT, find_package
from kfp_finetune.client.parameters import read_parameters
from kfp_finetune.components.torchtune_train.check import LONGEST_BY_DEFAULT, check_together
from kfp_finetune.components.torchtune_train.fits import possible_fits
from kfp_finetune.components.torchtune_train.forecast import forecast
from kfp_finetune.components.torchtune_train.memory import parameters, trained_parameters
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.components.torchtune_train.settings import TrainSettings, unfold_advanced
from kfp_finetune.errors import UserError, refuse
from kfp_finetune.settings import whole_numbers
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.source import open_source
from kfp_finetune.training.forecast import FILLED, UTILISATION, Forecast, table, warn

CONFIG = "config.json"
MANY = 10**9
"""Rows of a dataset that is not known: so many that they do not limit a batch."""


@dataclass(frozen=True)
class Rows:
    """The dataset, as far as it matters here.

    Args:
        count: Rows; 0 if that is not known.
        mean_tokens: Of each, on average; 0 for as many as a row may have.
    """

    count: int = 0
    mean_tokens: int = 0


@dataclass(frozen=True)
class Expected:
    """What is known of a training before it is planned.

    Args:
        model: As the user named it.
        parameters: Numbers in the model.
        trained: Numbers that are trained.
        settings: As they are meant.
        forecast: What it would need.
    """

    model: str
    parameters: int
    trained: int
    settings: TrainSettings
    forecast: Forecast


def expect(model: str, values: Mapping[str, Any], assignments: Sequence[str], rows: Rows) -> Expected:
    """Tells what a run of the pipeline torchtune_finetune would need.

    Args:
        model: A folder, or the address of one: hf://ORGANISATION/NAME, ORGANISATION/NAME, s3://BUCKET/PREFIX.
        values: The run's parameters by name; those that say nothing of the training are left alone.
        assignments: The same, typed as NAME=VALUE.
        rows: What is known of the dataset.

    Raises:
        UserError: If a value is wrong, or the model cannot be read or trained.
    """
    known = {
        name: replace(parameter, default="" if parameter.default is None else parameter.default)
        for name, parameter in read_parameters(find_package(DEFAULT)).items()
    }
    given = read_given(known, values, assignments, partial(torchtune.check, same_machine=False))
    settings = unfold_advanced(whole_numbers(given))[0]
    train = TrainSettings(**{name: settings[name] for name in TrainSettings.__dataclass_fields__ if name in settings})
    architecture = read_architecture(read_config(model))
    longest = train.max_seq_len or min(LONGEST_BY_DEFAULT, architecture.max_seq_len)
    train = replace(train, max_seq_len=longest)
    # What overrides name is called in the step `plan`, which has torch.
    if problems := check_together(replace(train, overrides={}), architecture):
        raise UserError(problems)
    sequences, tokens = _sequences(rows, train)
    settled = train.settled(sequences or MANY)
    in_update = settled.rows_a_step * settled.data_parallel_dim
    updates = np.full((min(sequences // in_update, train.max_steps_per_epoch or MANY), in_update), tokens)
    return Expected(
        model=model,
        parameters=parameters(architecture),
        trained=trained_parameters(train, architecture),
        settings=settled,
        forecast=forecast(settled, possible_fits(train, settled), architecture, updates, longest),
    )


def read_config(model: str) -> dict[str, Any]:
    """A model's config.json, without any other of its files.

    Args:
        model: See `expect`.

    Raises:
        UserError: If there is none that can be read.
    """
    source = open_source("model", model, Patterns(allow=(CONFIG,), ignore=()))
    with tempfile.TemporaryDirectory() as directory:
        source.fetch(Path(directory), lambda done, total: None)
        text = (Path(directory) / CONFIG).read_text()
    try:
        config = json.loads(text)
    except ValueError as error:
        raise refuse("model", f"{model}, whose {CONFIG} is no JSON ({error})", "a model", "Save it again.") from error
    if not isinstance(config, dict):
        raise refuse("model", f"{model}, whose {CONFIG} is no object", "a model", "Save it again.")
    return config


def _sequences(rows: Rows, train: TrainSettings) -> tuple[int, int]:
    """Rows, or packed sequences, and the tokens of each."""
    tokens = min(rows.mean_tokens or train.max_seq_len, train.max_seq_len)
    if train.packed:
        return -(-rows.count * tokens // train.max_seq_len), train.max_seq_len
    return rows.count, tokens


def show(console: Console, expected: Expected) -> None:
    """Prints a table over kinds of GPU, and what it rests on.

    Args:
        console: Where to print.
        expected: What is known of the training.
    """
    settings, told = expected.settings, expected.forecast
    gpus = "one GPU" if told.processes == 1 else f"each of {told.processes} GPUs"
    trained = f"{expected.trained:,} of {expected.parameters:,} parameters trained"
    print_line = partial(console.print, highlight=False, soft_wrap=True)
    print_line(escape(f"{expected.model}: {settings.method} in {settings.dtype}, {trained}"))
    rows = "1 row" if settings.rows_a_step == 1 else f"{settings.rows_a_step} rows"
    print_line(f"{rows} of up to {told.tokens_a_row:,} tokens in an update, on {gpus}\n")
    columns, cells = table(told)
    times = any(row[-1] for row in cells)
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns if times else columns[:-1]:
        shown.add_column(column, justify="right" if column in ("Needs", "Has") else "left")
    for row in cells:
        fits = f"[green]{row[3]}[/]" if row[3] == "yes" else f"[red]{row[3]}[/]"
        shown.add_row(*row[:3], fits, *(row[4:] if times else row[4:-1]))
    console.print(shown)
    console.print()
    for line in warn(told):
        print_line(f"[yellow]{escape(line)}[/]")
    print_line(f"An estimate: {UTILISATION:.0%} of a GPU's peak, and no more than {FILLED:.0%} of its memory.")
    if not times:
        print_line("With --rows and --mean-tokens it tells the time too.")


def as_json(expected: Expected) -> str:
    """All of it as one JSON object.

    Args:
        expected: What is known of the training.
    """
    told = expected.forecast
    gpus = [
        {
            "gpu": outlook.gpu.name,
            "products": outlook.gpu.products,
            "memory_gib": round(outlook.gpu.memory_gib, 2),
            "fits": outlook.fits,
            "way": asdict(outlook.way),
            "seconds_an_epoch": outlook.seconds_an_epoch,
        }
        for outlook in told.outlooks()
    ]
    facts = {"model": expected.model, "parameters": expected.parameters, "trained_parameters": expected.trained}
    return json.dumps({**facts, "expected": told.to_dict(), "gpus": gpus}, indent=2)
