"""Everything that can be known before a GPU is asked for: what is wrong, what will run, and whether it ran already."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kfp_finetune.components.torchtune_train.config import (
    Steps,
    apply_overrides,
    build_config,
    count_steps,
    write_config,
)
from kfp_finetune.components.torchtune_train.epochs import whole_epochs
from kfp_finetune.components.torchtune_train.models import Architecture, read_architecture
from kfp_finetune.components.torchtune_train.overrides import check_overrides, nest
from kfp_finetune.components.torchtune_train.packing import pack_rows
from kfp_finetune.components.torchtune_train.quantization import unquantizable
from kfp_finetune.components.torchtune_train.settings import DataSettings, TrainSettings, read_settings
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.reports.data import data_report
from kfp_finetune.workspace import (
    Manifest,
    Workspace,
    check_series_name,
    content_key,
    exclusive,
    is_intact,
    open_workspace,
    publishing,
    read_manifest,
)

FORMAT = 1
"""Raised by hand when the same settings would train differently than before; part of every training's key."""

PLAN_NAME = "plan.json"
REPORT_NAME = "data.html"
SAMPLES = 3
LONGEST_BY_DEFAULT = 2048
"""Tokens of a row where the user sets no limit and the model can read more."""


@dataclass(frozen=True)
class Plan:
    """A training, described so that the next steps need nothing else.

    Args:
        key: Made from dataset, model and every setting that shapes the result.
        training: The training's directory, relative to the workspace.
        model: The base model's directory, relative to the workspace.
        base: The base model as the user named it.
        dataset: The dataset as the user named it.
        method: "full" or "lora".
        epochs: Passes over the training rows.
        num_procs_per_node: Training processes.
        dtype: Of the weights that are written: "bf16" or "fp32".
        total_steps: Updates of the weights.
        lora_scale: alpha / rank of the adapter; 0 for full.
        has_chat_template: Whether the base model has one; else `chat.DEFAULT_CHAT_TEMPLATE` was used.
        train: What became of the training rows; see `TokenCounts`.
        held_out: The same for the held-out rows.
    """

    key: str
    training: str
    model: str
    base: str
    dataset: str
    method: str
    epochs: int
    num_procs_per_node: int
    dtype: str
    total_steps: int
    lora_scale: float
    has_chat_template: bool
    train: Mapping[str, int]
    held_out: Mapping[str, int]

    def to_json(self) -> str:
        """The plan as indented JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Reads what `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Outcome:
    """What planning found.

    Args:
        plan: The training.
        state: "new", "resume" (epochs of it are on the volume) or "done" (it is trained, exported and the newest of
            its series).
    """

    plan: Plan
    state: str


def make_plan(
    dataset: Manifest, model: Manifest, name: str, settings: Mapping[str, Any], workspace_root: str
) -> Outcome:
    """Checks everything and writes the training's directory, unless it is there already.

    Args:
        dataset: Of the published dataset.
        model: Of the published model.
        name: The series that the export will belong to.
        settings: The user's values for `DataSettings` and `TrainSettings`, by name.
        workspace_root: Absolute path of the mounted volume.

    Raises:
        UserError: With everything that is wrong.
    """
    workspace = open_workspace(workspace_root)
    data, train, architecture = _check(name, settings, workspace.root / model.path)
    key = content_key(
        {
            "format": FORMAT,
            "dataset": dataset.key,
            "model": model.key,
            "data": asdict(data),
            "train": asdict(train) | {"learning_rate": train.peak_learning_rate},
        }
    )
    training = workspace.training(key)
    with exclusive(training):
        if not (training / PLAN_NAME).exists():
            with publishing(training) as staging:
                _prepare(workspace, staging, key, dataset, model, data, train, architecture)
    plan = Plan.from_json((training / PLAN_NAME).read_text())
    return Outcome(plan, _state(workspace, plan, name))


def _check(name: str, values: Mapping[str, Any], model: Path) -> tuple[DataSettings, TrainSettings, Architecture]:
    problems: list[Problem] = []
    data, train, architecture = None, None, None
    data_names = DataSettings.__dataclass_fields__.keys()
    data, found = read_settings(DataSettings, {key: value for key, value in values.items() if key in data_names})
    problems += found
    train, found = read_settings(TrainSettings, {key: value for key, value in values.items() if key not in data_names})
    problems += found
    try:
        check_series_name(name)
    except UserError as error:
        problems += error.problems
    try:
        architecture = read_architecture(json.loads((model / "config.json").read_text()))
    except UserError as error:
        problems += error.problems
    if train is not None and architecture is not None:
        problems += _check_together(train, architecture)
    if problems or data is None or train is None or architecture is None:
        raise UserError(problems)
    if train.max_seq_len == 0:
        train = replace(train, max_seq_len=min(LONGEST_BY_DEFAULT, architecture.max_seq_len))
    return data, train, architecture


def _check_together(train: TrainSettings, architecture: Architecture) -> list[Problem]:
    problems = []
    if train.max_seq_len > architecture.max_seq_len:
        problems.append(
            Problem(
                "max_seq_len",
                str(train.max_seq_len),
                f"at most {architecture.max_seq_len}, the longest sequence of this model",
                f"Set max_seq_len to {architecture.max_seq_len} or less.",
            )
        )
    if train.packed and architecture.model_type == "GEMMA2":
        allowed = "false for Gemma 2, whose attention in torchtune takes no mask of packed rows"
        problems.append(Problem("packed", "true", allowed, "Set packed to false."))
    if train.quantizes_base:
        problems += unquantizable(architecture, train.num_procs_per_node)
    config = build_config(train, architecture, Path("model"), [], Path("training"), Steps(1, 1))
    return problems + check_overrides(config, train.overrides)


def _prepare(
    workspace: Workspace,
    staging: Path,
    key: str,
    dataset: Manifest,
    model: Manifest,
    data: DataSettings,
    train: TrainSettings,
    architecture: Architecture,
) -> None:
    from kfp_finetune.chat import DEFAULT_CHAT_TEMPLATE, load_tokenizer
    from kfp_finetune.components.torchtune_train.parts import open_parts
    from kfp_finetune.components.torchtune_train.samples import samples
    from kfp_finetune.components.torchtune_train.tokens import tokenize

    training = workspace.training(key)
    model_path = workspace.root / model.path
    tokenizer = load_tokenizer(model_path)
    with open_parts(workspace.root / dataset.path, data) as parts:
        tokens, shape, longest = staging / "tokens", parts.shape, train.max_seq_len
        train_counts, lengths = tokenize(parts.train, tokenizer, shape, data, longest, tokens / "train")
        held_out_counts, _ = tokenize(parts.held_out, tokenizer, shape, data, longest, tokens / "held_out")
        prompts = samples(parts.held_out, tokenizer, shape, data, longest, SAMPLES)
    steps = _count_steps(_count_items(staging / "tokens" / "train", train), train)
    weights = [file.path for file in model.files if file.path.endswith(".safetensors")]
    config = build_config(train, architecture, model_path, weights, training, steps)
    config = apply_overrides(config, train.overrides)
    write_config(staging / "config.yaml", config, train)
    plan = Plan(
        key=key,
        training=workspace.relative(training),
        model=model.path,
        base=model.source,
        dataset=dataset.source,
        method=train.method,
        epochs=train.epochs,
        num_procs_per_node=train.num_procs_per_node,
        dtype=train.dtype,
        total_steps=steps.total,
        lora_scale=config["model"]["lora_alpha"] / config["model"]["lora_rank"] if train.has_adapter else 0.0,
        has_chat_template=tokenizer.chat_template != DEFAULT_CHAT_TEMPLATE,
        train=asdict(train_counts),
        held_out=asdict(held_out_counts),
    )
    (staging / "samples.json").write_text(json.dumps(prompts, indent=2))
    (staging / REPORT_NAME).write_text(_report(plan, shape.kind, lengths, train, prompts))
    (staging / PLAN_NAME).write_text(plan.to_json())


def _count_items(tokens: Path, train: TrainSettings) -> int:
    import datasets

    rows = datasets.load_from_disk(str(tokens))
    return len(pack_rows([len(row) for row in rows["tokens"]], train.max_seq_len)) if train.packed else len(rows)


def _count_steps(rows: int, train: TrainSettings) -> Steps:
    bound = nest(train.overrides).get("max_steps_per_epoch")
    steps = count_steps(rows, train, bound)
    if steps.total:
        return steps
    in_a_step = train.batch_size * train.gradient_accumulation_steps * train.num_procs_per_node
    raise UserError(
        [
            Problem(
                "batch_size",
                f"{train.batch_size} x {train.gradient_accumulation_steps} accumulated x {train.num_procs_per_node} "
                f"processes = {in_a_step} rows in a step, with {rows} rows to train on",
                "at most as many rows in a step as there are",
                "Lower batch_size or gradient_accumulation_steps, or give more rows.",
            )
        ]
    )


def _report(plan: Plan, kind: str, lengths: list[int], train: TrainSettings, samples: list[dict[str, Any]]) -> str:
    return data_report(
        dataset=plan.dataset,
        model=plan.base,
        lengths=lengths,
        max_seq_len=train.max_seq_len,
        rows=[
            ("Kind of rows", kind),
            ("Rows to train on", f"{plan.train['rows']:,}"),
            ("Rows held out", f"{plan.held_out['rows']:,}"),
            ("Rows left out (no answer within max_seq_len)", f"{plan.train['dropped_rows']:,}"),
            ("Rows with an empty answer", f"{plan.train['empty_outputs']:,}"),
            ("Tokens to train on, an epoch", f"{plan.train['tokens']:,}"),
            ("Tokens that count in the loss", f"{plan.train['label_tokens']:,}"),
            ("Steps", f"{plan.total_steps:,}"),
        ],
        samples=[{"prompt": sample["prompt"], "answer": sample["expected"]} for sample in samples],
    )


def _state(workspace: Workspace, plan: Plan, name: str) -> str:
    export = workspace.export(plan.key)
    latest = workspace.latest(name)
    manifest = read_manifest(export)
    if (
        manifest is not None
        and is_intact(export, manifest)
        and latest.exists()
        and latest.resolve() == export.resolve()
    ):
        return "done"
    training = workspace.root / plan.training
    return "resume" if whole_epochs(training) else "new"


def describe(outcome: Outcome) -> str:
    """The outcome in a few lines, for the log."""
    plan, state = outcome.plan, outcome.state
    words = {
        "new": "new: it will be trained",
        "resume": "found unfinished: it goes on from its newest epoch",
        "done": "done already: nothing to do",
    }
    cut = plan.train["cut_rows"] / max(1, plan.train["rows"] + plan.train["dropped_rows"])
    return (
        f"training {plan.key} is {words[state]}\n"
        f"  {plan.method} of {plan.base} on {plan.dataset}\n"
        f"  {plan.train['rows']:,} rows ({cut:.1%} cut, {plan.train['dropped_rows']:,} left out), "
        f"{plan.held_out['rows']:,} held out, {plan.total_steps:,} steps"
    )
