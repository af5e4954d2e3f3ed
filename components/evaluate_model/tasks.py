"""Tasks of lm-evaluation-harness: whether they can be run, what they measure, and a model's figures on them."""

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.evaluate_model.settings import (
    FEWEST_QUESTIONS,
    EvaluationSettings,
    read_evaluation_settings,
)
from kfp_finetune.components.evaluate_model.task_data import WHAT, fetching, tasks_read_from
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.workspace import open_workspace

if TYPE_CHECKING:
    from kfp_finetune.components.evaluate_model.loss import Share

BOOTSTRAPS = 1000
"""Resamplings for the errors of figures that have no formula for it; the harness's own 100,000 take minutes."""

SEED = 1234
"""Of the draw of solved examples, as `simple_evaluate` has it."""

Figures = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""By task and figure: its `value`, and its standard error, `stderr`, if there is one."""


@dataclass(frozen=True)
class PlannedTasks:
    """Tasks that can be run.

    Args:
        evaluation: The settings, and where on the volume the tasks' data lies, for `Plan.evaluation`; empty for none.
        figures: What a gate can bound of what they will measure: TASK.FIGURE, and by how much it grew.
    """

    evaluation: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[str, ...] = ()


def plan_tasks(given: Any, workspace_root: str) -> tuple[PlannedTasks, list[Problem]]:
    """Checks the tasks that a user asks for and fetches their data.

    Args:
        given: The value of the parameter `evaluation`.
        workspace_root: Absolute path of the mounted volume.

    Returns:
        The tasks, and everything that is wrong with them.
    """
    settings, problems = read_evaluation_settings(given)
    if problems or not settings.tasks:
        return PlannedTasks(), problems
    noted: dict[str, str] = {}
    used: set[str] = set()
    looks: list[_Look] = []
    with tasks_read_from(fetching(open_workspace(workspace_root).root, settings.data, noted, used)):
        for name in dict.fromkeys(settings.tasks):
            try:
                looks.append(_look_at(name, settings))
            except UserError as error:
                problems += [_of_task(name, one) for one in error.problems]
    for name in settings.data.keys() - used if not problems else ():
        mend = "Correct the name or take it out."
        problems.append(Problem("evaluation.data", repr(name), f"what the tasks read: {', '.join(noted)}", mend))
    figures = [figure for look in looks for figure in look.figures]
    grown = [f"{figure}_improvement" for figure in figures]
    fewest = min((look.fewest_questions for look in looks), default=0)
    evaluation = {**asdict(settings), "data": noted, FEWEST_QUESTIONS: fewest}
    return PlannedTasks(evaluation, (*figures, *grown)), problems


def _of_task(name: str, problem: Problem) -> Problem:
    """A problem with a task's data in terms of the parameter, which is not the pipeline's own dataset."""
    what = problem.what if problem.what.startswith("evaluation") else WHAT
    mend = problem.mend if what == problem.what else f"{problem.mend} evaluation.data names another place for its data."
    return replace(problem, what=what, given=f"{name}: {problem.given}", mend=mend)


@dataclass(frozen=True)
class _Look:
    figures: Sequence[str]
    fewest_questions: int


def _look_at(name: str, settings: EvaluationSettings) -> _Look:
    """What a task or a group measures; all its questions are built, so that its data is there and can be read."""
    manager = _manager()
    if name not in manager.task_index:
        near = difflib.get_close_matches(name, manager.all_tasks, n=3)
        mend = f"Did you mean {' or '.join(near)}?" if near else "Correct the name."
        raise UserError([Problem(WHAT, "no task", "tasks and groups of lm-evaluation-harness", mend)])
    try:
        loaded = manager.load([name])
        questions = [_count_questions(task, settings) for task in loaded["tasks"].values()]
    except UserError:
        raise
    except ImportError as error:
        raise _cannot(f"it needs a Python package that the image does not have: {error}") from error
    except Exception as error:  # Whatever a task's own code raises.
        raise _cannot(f"it cannot be built from its data: {type(error).__name__}: {str(error)[:300]}") from error
    problems = [problem for task in loaded["tasks"].values() for problem in _refused(task)]
    if problems:
        raise UserError(problems)
    aggregated = [
        f"{group.name}.{metric.metric}"
        for group in loaded["groups"].values()
        for metric in (group.aggregate_metric_list or [])
    ]
    figures = [figure for task in loaded["tasks"].values() for figure in _figures_of(task)]
    return _Look([*figures, *aggregated], min(questions, default=0))


def _count_questions(task: Any, settings: EvaluationSettings) -> int:
    """How many questions a task has, each of which is built as it will be asked."""
    if settings.num_fewshot is not None and task.get_config("num_fewshot") != 0:
        task.set_config(key="num_fewshot", value=settings.num_fewshot)
    task.set_fewshot_seed(seed=SEED)
    task.build_all_requests(limit=settings.limit or None, rank=0, world_size=1)
    questions = len(task.eval_docs)
    return min(questions, settings.limit) if settings.limit else questions


def _figures_of(task: Any) -> list[str]:
    filters = [ensemble.name for ensemble in task._filters]
    metrics = [metric["metric"] for metric in task.config.metric_list or []]
    names = [metric if isinstance(metric, str) else metric.__name__ for metric in metrics]
    return [figure_name(task.config.task, f"{name},{one}") for name in names for one in filters]


def figure_name(task: str, figure: str) -> str:
    """TASK.FIGURE, with the filter of the answers that it counts unless there is only one.

    Args:
        task: Name of the task.
        figure: As the harness names it: "acc,none", "exact_match,strict-match".
    """
    name, _, answers = figure.partition(",")
    return f"{task}.{name}" + (f".{answers}" if answers not in ("", "none") else "")


def _refused(task: Any) -> list[Problem]:
    if getattr(task, "UNSAFE_CODE", False):
        return [Problem(WHAT, "it runs code that the model writes", "tasks that run no code", "Take it out.")]
    if getattr(task, "MULTIMODAL", False):
        return [Problem(WHAT, "it has pictures or sounds", "tasks of text", "Take it out.")]
    return []


def _cannot(why: str) -> UserError:
    return UserError([Problem(WHAT, why, "tasks that can be built here", "Take it out, or mend what it names.")])


@cache
def _manager() -> Any:
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager()


def run_tasks(what: str, model: Any, tokenizer: Any, settings: EvaluationSettings, share: "Share") -> Figures:
    """A model's figures on the tasks; their data is read as `tasks_read_from` says.

    Args:
        what: Name of the work, for its progress.
        model: In evaluation mode.
        tokenizer: The model's.
        settings: Which tasks, and how.
        share: This process's share; every process takes part, and the first one has the figures.

    Returns:
        The figures; none in the other processes.
    """
    from lm_eval import simple_evaluate

    from kfp_finetune.components.evaluate_model.harness import harness_model

    results = simple_evaluate(
        model=harness_model(what, model, tokenizer, share),
        tasks=list(dict.fromkeys(settings.tasks)),
        task_manager=_manager(),
        num_fewshot=settings.num_fewshot,
        limit=settings.limit or None,
        apply_chat_template=settings.apply_chat_template,
        bootstrap_iters=BOOTSTRAPS,
        log_samples=False,
    )
    return _figures(results["results"]) if results else {}


def _figures(results: Mapping[str, Mapping[str, Any]]) -> Figures:
    """What the harness found, with numbers only; "acc_stderr,none" is the error of "acc,none"."""
    figures: dict[str, dict[str, dict[str, float | None]]] = {}
    for task, found in results.items():
        for name, value in found.items():
            metric, _, answers = name.partition(",")
            if not answers or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = found.get(f"{metric}_stderr,{answers}")
            known = figure_name("", name).removeprefix(".")
            figures.setdefault(task, {})[known] = {
                "value": float(value),
                "stderr": float(error) if isinstance(error, int | float) else None,
            }
    return figures
