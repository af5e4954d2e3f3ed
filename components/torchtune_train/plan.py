"""Everything that can be known before a GPU is asked for: what is wrong, what will run, and whether it ran already."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.torchtune_train.check import Request, check_request
from kfp_finetune.components.torchtune_train.epochs import finished_epochs
from kfp_finetune.components.torchtune_train.settings import IN_FOUR_BITS
from kfp_finetune.reports.data import data_report
from kfp_finetune.workspace import (
    Manifest,
    Workspace,
    exclusive,
    is_intact,
    open_workspace,
    publishing,
    read_manifest,
)

if TYPE_CHECKING:
    from kfp_finetune.components.torchtune_train.prepare import Prepared

PLAN_NAME = "plan.json"
REPORT_NAME = "data.html"
FEW_STEPS = 20
"""A training with fewer steps gets a warning."""


@dataclass(frozen=True)
class Plan:
    """A training, described so that the next steps need nothing else.

    Args:
        key: Made from dataset, model and every setting that shapes the result.
        training: The training's directory, relative to the workspace.
        model: The base model's directory, relative to the workspace.
        base: The base model as the user named it.
        dataset: The dataset as the user named it.
        method: "full", "lora", "dora", "qlora" or "qdora".
        epochs: Passes over the training rows.
        num_procs_per_node: Training processes.
        dtype: Of the weights that are written: "bf16" or "fp32".
        total_steps: Updates of the weights.
        lora_scale: alpha / rank of the adapter; 0 for full.
        export_checkpoint: "last" or "best".
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
    export_checkpoint: str
    has_chat_template: bool
    train: Mapping[str, int]
    held_out: Mapping[str, int]

    @property
    def quantizes_base(self) -> bool:
        """Whether training held the base's weights in four bits."""
        return self.method in IN_FOUR_BITS

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
        state: "new", "resume" (epochs of it are on the volume), "trained" or "done" (it is trained, exported and the
            newest of its series).
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
        settings: The user's values for `DataSettings`, `TrainSettings` and `advanced`, by name.
        workspace_root: Absolute path of the mounted volume.

    Raises:
        UserError: With everything that is wrong.
    """
    workspace = open_workspace(workspace_root)
    request = check_request(dataset, model, name, settings, workspace)
    training = workspace.training(request.key)
    with exclusive(training):
        if not (training / PLAN_NAME).exists():
            from kfp_finetune.components.torchtune_train.prepare import prepare

            with publishing(training) as staging:
                prepared = prepare(request, workspace, staging)
                plan = _describe(request, prepared, workspace.relative(training))
                (staging / REPORT_NAME).write_text(_report(plan, request, prepared))
                (staging / PLAN_NAME).write_text(plan.to_json())
    plan = Plan.from_json((training / PLAN_NAME).read_text())
    return Outcome(plan, _state(workspace, plan, name))


def _describe(request: Request, prepared: "Prepared", training: str) -> Plan:
    train = request.train
    return Plan(
        key=request.key,
        training=training,
        model=request.model.path,
        base=request.model.source,
        dataset=request.dataset.source,
        method=train.method,
        epochs=train.epochs,
        num_procs_per_node=train.num_procs_per_node,
        dtype=train.dtype,
        total_steps=prepared.steps.total,
        lora_scale=train.alpha / train.lora_rank if train.has_adapter else 0.0,
        export_checkpoint=train.export_checkpoint,
        has_chat_template=prepared.has_chat_template,
        train=asdict(prepared.train),
        held_out=asdict(prepared.held_out),
    )


def _report(plan: Plan, request: Request, prepared: "Prepared") -> str:
    return data_report(
        dataset=plan.dataset,
        model=plan.base,
        lengths=list(prepared.lengths),
        max_seq_len=request.train.max_seq_len,
        rows=[
            ("Kind of rows", prepared.kind),
            ("Rows to train on", f"{plan.train['rows']:,}"),
            ("Rows held out", f"{plan.held_out['rows']:,}"),
            ("Rows left out (no answer within max_seq_len)", f"{plan.train['dropped_rows']:,}"),
            ("Rows cut off at max_seq_len", f"{plan.train['cut_rows']:,}"),
            ("Rows with an empty answer", f"{plan.train['empty_outputs']:,}"),
            ("Tokens to train on, an epoch", f"{plan.train['tokens']:,}"),
            ("Tokens that count in the loss", f"{plan.train['label_tokens']:,}"),
            ("Steps", f"{plan.total_steps:,}"),
        ],
        samples=[{"prompt": sample["prompt"], "answer": sample["expected"]} for sample in prepared.prompts],
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
    finished = finished_epochs(training)
    return "trained" if finished == plan.epochs else "resume" if finished else "new"


def describe(outcome: Outcome) -> str:
    """The outcome in a few lines, for the log."""
    plan, state = outcome.plan, outcome.state
    words = {
        "new": "new: it will be trained",
        "resume": "found unfinished: it goes on from its newest epoch",
        "trained": "trained already: it is evaluated and exported",
        "done": "done already: nothing to do",
    }
    cut = plan.train["cut_rows"] / max(1, plan.train["rows"] + plan.train["dropped_rows"])
    lines = [
        f"training {plan.key} is {words[state]}",
        f"  {plan.method} of {plan.base} on {plan.dataset}",
        f"  {plan.train['rows']:,} rows ({cut:.1%} cut, {plan.train['dropped_rows']:,} left out), "
        f"{plan.held_out['rows']:,} held out, {plan.total_steps:,} steps",
    ]
    if plan.total_steps < FEW_STEPS:
        lines.append("  so few steps teach little: lower batch_size or max_seq_len (packed), or raise epochs")
    if plan.train["empty_outputs"]:
        lines.append(f"  {plan.train['empty_outputs']:,} rows have an empty answer")
    return "\n".join(lines)
