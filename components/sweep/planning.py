"""Checks every trial of a sweep before any of them is trained, and writes what they need."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kfp_finetune.components.sweep.aim import Aim
from kfp_finetune.components.sweep.measured import evaluation_of, has_model, keep_waiting
from kfp_finetune.components.sweep.search import Search, Values, draw, with_values
from kfp_finetune.components.sweep.sweep import SWEEP_NAME, Sweep, Trial, describe, sweep_key
from kfp_finetune.components.torchtune_train.check import Request, check_copy, check_request
from kfp_finetune.components.torchtune_train.disk import bytes_inside_epoch, bytes_of_epochs, bytes_of_export
from kfp_finetune.components.torchtune_train.planning import sharing_planner
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.manifests import Manifest
from kfp_finetune.publishing import write_atomically
from kfp_finetune.settings import whole_numbers
from kfp_finetune.training.disk import bytes_missing, compare_room
from kfp_finetune.training.forecast import Forecast
from kfp_finetune.training.forecast import describe as describe_forecast
from kfp_finetune.training.planning import Asked, write_training
from kfp_finetune.workspace import Workspace, open_workspace


def plan_sweep(
    dataset: Manifest,
    model: Manifest,
    name: str,
    settings: Mapping[str, Any],
    search: Search,
    aim: Aim,
    workspace_root: str,
    problems: Sequence[Problem] = (),
    asked: Asked | None = None,
    max_parallel: int = 4,
) -> Sweep:
    """Checks all trials, then writes each one's directory unless it is there already.

    Args:
        dataset: Of the published dataset.
        model: Of the published model.
        name: The series that the export will belong to.
        settings: The user's values for every trial, by name.
        search: What varies; empty if `problems` say what is wrong with it.
        aim: What the trials are compared by.
        workspace_root: Absolute path of the mounted volume.
        problems: What was found wrong before.
        asked: What the run is to do with the best model. Default: an export alone.
        max_parallel: Trials that train at the same time, which is how many keep checkpoints inside an epoch.

    Raises:
        UserError: With everything that is wrong.
    """
    workspace, asked = open_workspace(workspace_root), asked or Asked()
    combinations = draw(search) if search.space else [{}]
    trainings, found = _check_each(dataset, model, name, whole_numbers(settings), combinations, workspace)
    wrong = [*problems, *found] or _check_writing(workspace, [request for _, request in trainings], asked, max_parallel)
    if wrong:
        raise UserError(wrong)
    if same := len(combinations) - len(trainings):
        print(f"{same} of {len(combinations)} combinations are the same training as another", flush=True)
    key = sweep_key([request.key for _, request in trainings])
    of_trials = replace(asked, evaluation=asked.evaluation if aim.needs_tasks else {})
    trials = _write_each(workspace, trainings, key, of_trials)
    sweep = Sweep(key, name, aim, trials, asked.evaluation)
    folder = workspace.sweep(key)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SWEEP_NAME, sweep.to_json())
    keep_waiting(workspace, sweep)
    return sweep


def _check_each(
    dataset: Manifest,
    model: Manifest,
    name: str,
    settings: Mapping[str, Any],
    combinations: Sequence[Values],
    workspace: Workspace,
) -> tuple[list[tuple[Values, Request]], list[Problem]]:
    """The trainings of all combinations, none twice, and what is wrong with any."""
    trainings: dict[str, tuple[Values, Request]] = {}
    faults: dict[Problem, list[Values]] = {}
    for values in combinations:
        try:
            request = check_request(dataset, model, name, with_values(settings, values), workspace)
        except UserError as error:
            for problem in error.problems:
                faults.setdefault(problem, []).append(values)
        else:
            trainings.setdefault(request.key, (values, request))
    return list(trainings.values()), [_of_some(problem, of, len(combinations)) for problem, of in faults.items()]


def _write_each(
    workspace: Workspace, trainings: Sequence[tuple[Values, Request]], sweep: str, asked: Asked
) -> list[Trial]:
    """Writes the trainings' directories; what is wrong with the rows for any of them is one message."""
    planner, trials = sharing_planner(), []
    expected: list[tuple[Forecast, str]] = []
    faults: dict[Problem, list[Values]] = {}
    for number, (values, request) in enumerate(trainings, start=1):
        try:
            outcome = write_training(planner, workspace, request, asked)
        except UserError as error:
            for problem in error.problems:
                faults.setdefault(problem, []).append(values)
        else:
            summary = outcome.summary.to_line() if outcome.summary else ""
            trials.append(Trial(number, values, replace(outcome.plan, expected={}), sweep, summary))
            if outcome.plan.expected:
                expected.append((Forecast.from_dict(outcome.plan.expected), trials[-1].title))
    if faults:
        raise UserError([_of_some(problem, of, len(trainings)) for problem, of in faults.items()])
    _foretell(expected)
    return trials


def _foretell(expected: Sequence[tuple[Forecast, str]]) -> None:
    """Prints what is expected of the trial that needs most memory, given each one's forecast and title."""
    if expected:
        forecast, title = max(expected, key=lambda told: min(way.memory_gib for way in told[0].ways))
        for line in describe_forecast(forecast):
            print(f"{title}: {line}", flush=True)


def _of_some(problem: Problem, faulty: Sequence[Values], count: int) -> Problem:
    """A problem with one of the trials that have it, unless all have."""
    if len(faulty) == count:
        return problem
    others = f", and {len(faulty) - 1} more" if len(faulty) > 1 else ""
    return replace(problem, given=f"{problem.given} (with {describe(faulty[0])}{others})")


def _check_writing(workspace: Workspace, requests: Sequence[Request], asked: Asked, max_parallel: int) -> list[Problem]:
    """What is wrong with the copy, or with the volume's free space, where the models of all trials lie for a while."""
    needed, inside, exported = 0, 0, 0
    for request in requests:
        of = (request.train, request.architecture, request.model.facts.get("parameters", 0))
        needed += bytes_missing(workspace, request.key, bytes_of_epochs(*of))
        inside, exported = max(inside, bytes_inside_epoch(*of)), max(exported, bytes_of_export(*of))
    export = exported + asked.export.bytes_beside(exported)
    needed += max(min(len(requests), max_parallel) * inside, export)
    mend = "lower epochs, or set keep_last_n_checkpoints to 1 and checkpoint_minutes to 0"
    aware = {request.train.quantization_aware for request in requests}
    without_copy = [problem for bits in sorted(aware) for problem in check_copy(bits, asked.export.quantize)]
    return without_copy + compare_room(
        workspace, needed, f"the checkpoints of {len(requests)} trials and the export", mend
    )


def trials_to_run(sweep: Sweep, workspace_root: str) -> list[Trial]:
    """The trials that are to be trained or evaluated: those that were not, and the best if its model is gone.

    Args:
        sweep: From `plan_sweep`.
        workspace_root: Absolute path of the mounted volume.

    Returns:
        At least one, since KFP's loops are over something.
    """
    workspace, aim = open_workspace(workspace_root), sweep.aim
    figures = {trial.number: aim.figure(evaluation_of(workspace, trial)) for trial in sweep.trials}
    missing = [trial for trial in sweep.trials if figures[trial.number] is None]
    measured = [trial for trial in sweep.trials if figures[trial.number] is not None]
    best = min(measured, key=lambda trial: aim.rank(figures[trial.number] or 0.0), default=None)
    if best is not None and not (missing and has_model(workspace, best)):
        missing.append(best)
    print(f"{len(missing)} of {len(sweep.trials)} trials to run", flush=True)
    return missing
