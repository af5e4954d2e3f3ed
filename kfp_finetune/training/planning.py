"""Everything that can be known before a GPU is asked for: what is wrong, what will run, and whether it ran already."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from kfp_finetune.errors import Problem, UserError, refuse
from kfp_finetune.manifests import Manifest
from kfp_finetune.publishing import exclusive, publishing
from kfp_finetune.series import newest_export, note_use, release
from kfp_finetune.settings import whole_numbers
from kfp_finetune.training.epochs import finished_epochs
from kfp_finetune.training.evaluation import has_run_tasks, read_evaluation, tells_newest
from kfp_finetune.training.exporting import ExportSettings
from kfp_finetune.training.forecast import Forecast
from kfp_finetune.training.forecast import describe as describe_forecast
from kfp_finetune.training.gate import failed_bounds
from kfp_finetune.training.plan import PLAN_NAME, Plan, read_plan
from kfp_finetune.training.published import published_places
from kfp_finetune.training.request import Request
from kfp_finetune.training.steps import newest_step
from kfp_finetune.training.summary import Summary, read_summary
from kfp_finetune.workspace import Workspace, open_workspace

FEW_STEPS = 20
"""A training with fewer steps gets a warning."""

OF_NOW = (
    "num_procs_per_node", "num_nodes", "work", "origin", "license", "dataset_revision", "evaluation",
    "checkpoint_minutes",
)  # fmt: skip
"""What a plan says that does not shape the result: the same processes may have been spread over other machines when it
was written, and the same model had another address."""


R = TypeVar("R", bound=Request)


@dataclass(frozen=True)
class Planner(Generic[R]):
    """What is peculiar to the planning of one kind of training.

    Args:
        check: The request for a dataset, a model, a series' name, the user's settings and a workspace; it raises a
            UserError with everything that is wrong.
        check_writing: What is wrong with what will be written, an export with some settings too: above all free space.
        settings: What a plan says of a request's settings, by the names of `Plan`'s fields.
        write: Writes all that the training reads into a directory and gives the whole plan, made from its outline.
    """

    check: Callable[[Manifest, Manifest, str, Mapping[str, Any], Workspace], R]
    check_writing: Callable[[Workspace, R, ExportSettings], list[Problem]]
    settings: Callable[[R], Mapping[str, Any]]
    write: Callable[[Workspace, R, Plan, Path], Plan]


@dataclass(frozen=True)
class Outcome:
    """What planning found.

    Args:
        plan: The training.
        state: "new", "resume" (checkpoints of it are on the volume), "trained" or "done" (it is exported and the newest
            of its series).
        summary: Its figures, if it is trained and not done.
        skipped: Whether it is done since another training would do to its result what it did itself.
    """

    plan: Plan
    state: str
    summary: Summary | None = None
    skipped: bool = False


@dataclass(frozen=True)
class Asked:
    """What a run is to do with the trained model; nothing of it is in the training's key.

    Args:
        evaluation: Tasks that the model is to be evaluated on, for `Plan.evaluation`.
        gate: Bounds for its figures.
        export: How the export is to be written.
        publish_to: Addresses at which it is to be published.
    """

    evaluation: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, float] = field(default_factory=dict)
    export: ExportSettings = field(default_factory=ExportSettings)
    publish_to: Collection[str] = ()


def make_plan(
    planner: Planner[R],
    dataset: Manifest,
    model: Manifest,
    name: str,
    settings: Mapping[str, Any],
    workspace_root: str,
    problems: Sequence[Problem] = (),
    skip_unchanged: bool = True,
    asked: Asked | None = None,
) -> Outcome:
    """Checks everything and writes the training's directory, unless it is there already.

    Args:
        planner: What is peculiar to this kind of training.
        dataset: Of the published dataset.
        model: Of the published model.
        name: The series that the export will belong to.
        settings: The user's values by name.
        workspace_root: Absolute path of the mounted volume.
        problems: What was found wrong before, with the place where it is to run.
        skip_unchanged: Whether a series that goes on from its newest export ends with it while data and settings are
            those that it was made with.
        asked: What the run is to do with the trained model. Default: an export alone.

    Raises:
        UserError: With everything that is wrong.
    """
    workspace = open_workspace(workspace_root)
    try:
        request = planner.check(dataset, model, name, whole_numbers(settings), workspace)
    except UserError as error:
        raise UserError([*problems, *error.problems]) from error
    newest = _finished(workspace, name, request, skip_unchanged)
    asked = asked or Asked()
    wrong = [*problems, *([] if newest else planner.check_writing(workspace, request, asked.export))]
    if wrong:
        raise UserError(wrong)
    if newest:
        outcome = _recall(workspace, request, newest, _outline(planner, workspace, request, asked), asked)
    else:
        outcome = write_training(planner, workspace, request, asked)
    note_use(workspace, name, outcome.plan.key)
    release(workspace, model.facts.get("hold", ""))
    return outcome


def write_training(planner: Planner[R], workspace: Workspace, request: R, asked: Asked) -> Outcome:
    """Writes the directory of a training that has no fault, unless it is there already.

    Args:
        planner: What is peculiar to this kind of training.
        workspace: The tree on the volume.
        request: The training.
        asked: What the run is to do with the trained model.
    """
    outline = _outline(planner, workspace, request, asked)
    return _prepare(workspace, outline, partial(planner.write, workspace, request, outline))


def _finished(workspace: Workspace, name: str, request: Request, skip_unchanged: bool) -> Manifest | None:
    """The newest export of a series, if nothing is to be done after it."""
    newest = newest_export(workspace, name)
    if newest is None or newest.key == request.key:
        return newest
    same = (newest.facts.get("work"), newest.facts.get("origin")) == (request.work, request.origin)
    return newest if same and request.goes_on and skip_unchanged else None


def _outline(planner: Planner[R], workspace: Workspace, request: R, asked: Asked) -> Plan:
    """The plan, as far as it is known without rows."""
    settings = {**planner.settings(request), "evaluation": asked.evaluation}
    return Plan(
        key=request.key,
        training=workspace.relative(workspace.training(request.key)),
        model=request.model.path,
        base=request.model.source,
        dataset=request.dataset.source,
        total_steps=0,
        has_chat_template=True,
        train={},
        held_out={},
        work=request.work,
        origin=request.origin,
        license=request.model.facts.get("license", ""),
        dataset_revision=request.dataset.revision,
        **settings,
    )


def _recall(workspace: Workspace, request: Request, newest: Manifest, outline: Plan, asked: Asked) -> Outcome:
    training = workspace.training(newest.key)
    left = _left_to_do(workspace, newest, training, asked)
    if (training / PLAN_NAME).exists():
        plan = replace(read_plan(training), evaluation=outline.evaluation)
        if left:
            return Outcome(plan, "trained", read_summary(training))
    else:  # Somebody made room: the export stands without it.
        if left:
            given = f"{', '.join(left)}, for an export whose training is gone from the volume"
            allowed = f"none of these, or a training in {workspace.relative(training)}"
            mend = f"Leave them out, or delete {newest.path} so that it is trained anew."
            raise refuse("volume", given, allowed, mend)
        plan = replace(outline, key=newest.key, training=workspace.relative(training), base=newest.source)
    return Outcome(plan, "done", skipped=newest.key != request.key)


def _left_to_do(workspace: Workspace, newest: Manifest, training: Path, asked: Asked) -> list[str]:
    """The parameters of which something is left to do for an export that is there."""
    evaluation = read_evaluation(training)
    kept = {
        "evaluation": has_run_tasks(training, asked.evaluation) and tells_newest(newest.facts, training),
        "gate": not asked.gate or (bool(evaluation) and not failed_bounds(asked.gate, evaluation)),
        "export": asked.export.are_those_of(newest.facts),
        "publish_to": published_places(workspace, newest).keys() >= set(asked.publish_to),
    }
    return [name for name, is_kept in kept.items() if not is_kept]


def _prepare(workspace: Workspace, outline: Plan, write: Callable[[Path], Plan]) -> Outcome:
    """The training's directory is written, unless it is there already."""
    training = workspace.training(outline.key)
    with exclusive(training):
        if not (training / PLAN_NAME).exists():
            with publishing(training) as staging:
                (staging / PLAN_NAME).write_text(write(staging).to_json())
    plan = replace(read_plan(training), **{name: getattr(outline, name) for name in OF_NOW})
    finished = finished_epochs(training)
    if finished == plan.epochs:
        return Outcome(plan, "trained", read_summary(training))
    return Outcome(plan, "resume" if finished or newest_step(training) else "new")


def describe(outcome: Outcome) -> str:
    """The outcome in a few lines, for the log."""
    plan, state = outcome.plan, outcome.state
    words = {
        "new": "new: it will be trained",
        "resume": "found unfinished: it goes on from its newest checkpoint",
        "trained": "trained already: it is evaluated, exported and published",
        "done": "done already: nothing to do",
    }
    lines = [f"training {plan.key} is {words[state]}", f"  {plan.method} of {plan.base} on {plan.dataset}"]
    if outcome.skipped:
        lines.append("  data and settings are still the same; skip_unchanged=false trains on from its export")
    if plan.train:
        lines += _describe_rows(plan)
    if plan.expected and state in ("new", "resume"):
        lines += [f"  {line}" for line in describe_forecast(Forecast.from_dict(plan.expected))]
    return "\n".join(lines)


def _describe_rows(plan: Plan) -> list[str]:
    dropped = plan.train.get("dropped_rows", 0)
    cut = plan.train["cut_rows"] / max(1, plan.train["rows"] + dropped)
    lines = [
        f"  {plan.train['rows']:,} rows ({cut:.1%} cut, {dropped:,} left out), "
        f"{plan.held_out['rows']:,} held out, {plan.total_steps:,} steps",
    ]
    if plan.total_steps < FEW_STEPS:
        lines.append("  so few steps teach little: lower batch_size or max_seq_len (packed), or raise epochs")
    if plan.train.get("empty_outputs"):
        lines.append(f"  {plan.train['empty_outputs']:,} rows have an empty answer")
    return lines
