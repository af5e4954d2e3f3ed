"""Everything that can be known before a GPU is asked for: what is wrong, what will run, and whether it ran already."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.torchtune_train.check import Request, check_request
from kfp_finetune.components.torchtune_train.disk import check_disk
from kfp_finetune.components.torchtune_train.epochs import finished_epochs
from kfp_finetune.components.torchtune_train.plan import PLAN_NAME, Plan, read_plan
from kfp_finetune.components.torchtune_train.summary import Summary, read_summary
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.manifests import Manifest
from kfp_finetune.publishing import exclusive, publishing
from kfp_finetune.reports.data import data_report
from kfp_finetune.series import newest_export, note_use, release
from kfp_finetune.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from kfp_finetune.components.torchtune_train.prepare import Prepared

REPORT_NAME = "data.html"
FEW_STEPS = 20
"""A training with fewer steps gets a warning."""


@dataclass(frozen=True)
class Outcome:
    """What planning found.

    Args:
        plan: The training.
        state: "new", "resume" (epochs of it are on the volume), "trained" or "done" (it is exported and the newest of
            its series).
        summary: Its figures, if it is trained and not done.
        skipped: Whether it is done since another training would do to its result what it did itself.
    """

    plan: Plan
    state: str
    summary: Summary | None = None
    skipped: bool = False


def make_plan(
    dataset: Manifest,
    model: Manifest,
    name: str,
    settings: Mapping[str, Any],
    workspace_root: str,
    problems: Sequence[Problem] = (),
    skip_unchanged: bool = True,
) -> Outcome:
    """Checks everything and writes the training's directory, unless it is there already.

    Args:
        dataset: Of the published dataset.
        model: Of the published model.
        name: The series that the export will belong to.
        settings: The user's values for `DataSettings`, `TrainSettings` and `advanced`, by name.
        workspace_root: Absolute path of the mounted volume.
        problems: What was found wrong before, with the place where it is to run.
        skip_unchanged: Whether a series that goes on from its newest export ends with it while data and settings are
            those that it was made with.

    Raises:
        UserError: With everything that is wrong.
    """
    workspace = open_workspace(workspace_root)
    try:
        request = check_request(dataset, model, name, settings, workspace)
    except UserError as error:
        raise UserError([*problems, *error.problems]) from error
    newest = _finished(workspace, name, request, skip_unchanged)
    wrong = [*problems, *([] if newest else _check_room(workspace, request))]
    if wrong:
        raise UserError(wrong)
    outcome = _recall(workspace, request, newest) if newest else _prepare(workspace, request)
    note_use(workspace, name, outcome.plan.key)
    release(workspace, model.facts.get("hold", ""))
    return outcome


def _finished(workspace: Workspace, name: str, request: Request, skip_unchanged: bool) -> Manifest | None:
    """The newest export of the series, if nothing is to be done after it."""
    newest = newest_export(workspace, name)
    if newest is None or newest.key == request.key:
        return newest
    same = (newest.facts.get("work"), newest.facts.get("origin")) == (request.work, request.origin)
    return newest if same and request.goes_on and skip_unchanged else None


def _check_room(workspace: Workspace, request: Request) -> list[Problem]:
    parameters = request.model.facts.get("parameters", 0)
    return check_disk(workspace, request.key, request.train, request.architecture, parameters)


def _recall(workspace: Workspace, request: Request, newest: Manifest) -> Outcome:
    training = workspace.training(newest.key)
    if (training / PLAN_NAME).exists():
        plan = read_plan(training)
    else:  # Somebody made room: the export stands without it.
        plan = _describe(request, None, workspace.relative(training))
        plan = replace(plan, key=newest.key, base=newest.source)
    return Outcome(plan, "done", skipped=newest.key != request.key)


def _prepare(workspace: Workspace, request: Request) -> Outcome:
    """The training's directory is written, unless it is there already."""
    training = workspace.training(request.key)
    with exclusive(training):
        if not (training / PLAN_NAME).exists():
            from kfp_finetune.components.torchtune_train.prepare import prepare

            with publishing(training) as staging:
                prepared = prepare(request, workspace, staging)
                plan = _describe(request, prepared, workspace.relative(training))
                (staging / REPORT_NAME).write_text(_report(plan, request, prepared))
                (staging / PLAN_NAME).write_text(plan.to_json())
    # The same processes may have been spread over other machines before, and the same model had another address.
    plan = replace(
        read_plan(training),
        num_procs_per_node=request.train.num_procs_per_node,
        num_nodes=request.train.num_nodes,
        work=request.work,
        origin=request.origin,
        license=request.model.facts.get("license", ""),
    )
    finished = finished_epochs(training)
    if finished == plan.epochs:
        return Outcome(plan, "trained", read_summary(training))
    return Outcome(plan, "resume" if finished else "new")


def _describe(request: Request, prepared: "Prepared | None", training: str) -> Plan:
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
        num_nodes=train.num_nodes,
        dtype=train.dtype,
        total_steps=prepared.steps.total if prepared else 0,
        lora_scale=train.alpha / train.lora_rank if train.has_adapter else 0.0,
        export_checkpoint=train.export_checkpoint,
        has_chat_template=prepared is None or prepared.has_chat_template,
        train=asdict(prepared.train) if prepared else {},
        held_out=asdict(prepared.held_out) if prepared else {},
        work=request.work,
        origin=request.origin,
        license=request.model.facts.get("license", ""),
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


def describe(outcome: Outcome) -> str:
    """The outcome in a few lines, for the log."""
    plan, state = outcome.plan, outcome.state
    words = {
        "new": "new: it will be trained",
        "resume": "found unfinished: it goes on from its newest epoch",
        "trained": "trained already: it is evaluated and exported",
        "done": "done already: nothing to do",
    }
    lines = [f"training {plan.key} is {words[state]}", f"  {plan.method} of {plan.base} on {plan.dataset}"]
    if outcome.skipped:
        lines.append("  data and settings are still the same; skip_unchanged=false trains on from its export")
    return "\n".join([*lines, *(_describe_rows(plan) if plan.train else [])])


def _describe_rows(plan: Plan) -> list[str]:
    cut = plan.train["cut_rows"] / max(1, plan.train["rows"] + plan.train["dropped_rows"])
    lines = [
        f"  {plan.train['rows']:,} rows ({cut:.1%} cut, {plan.train['dropped_rows']:,} left out), "
        f"{plan.held_out['rows']:,} held out, {plan.total_steps:,} steps",
    ]
    if plan.total_steps < FEW_STEPS:
        lines.append("  so few steps teach little: lower batch_size or max_seq_len (packed), or raise epochs")
    if plan.train["empty_outputs"]:
        lines.append(f"  {plan.train['empty_outputs']:,} rows have an empty answer")
    return lines
