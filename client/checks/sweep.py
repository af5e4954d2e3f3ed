"""The parameters of a pipeline that trains with many settings."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kfp_finetune.client.checks import torchtune
from kfp_finetune.client.checks.trainer import Trainer
from kfp_finetune.components.evaluate_model.settings import check_evaluation
from kfp_finetune.components.sweep.aim import read_aim
from kfp_finetune.components.sweep.search import WHAT, Search, draw, read_search, with_values
from kfp_finetune.components.sweep.sweep import describe
from kfp_finetune.errors import Problem
from kfp_finetune.training.gate import OF_EVERY_TRAINING


def check(values: Mapping[str, Any], same_machine: bool) -> list[Problem]:
    """What is wrong with a sweep's settings, and with those of any of its trials; see `Trainer`."""
    samples, seed = values.get("samples", 0), values.get("search_seed", 0)
    given, advanced = values.get(WHAT), values.get("advanced")
    search, problems = (Search(), []) if given is None else read_search(given, samples, seed, advanced)
    problems = [*problems, *_check_aim(values)]
    of_all = torchtune.check(values, same_machine)
    of_some: dict[Problem, Problem] = {}
    for combination in draw(search) if search.space else []:
        for problem in torchtune.check(with_values(values, combination), same_machine):
            given = f"{problem.given} (with {describe(combination)})"
            of_some.setdefault(problem, replace(problem, given=given))
    return [*problems, *of_all, *(told for problem, told in of_some.items() if problem not in of_all)]


def _check_aim(values: Mapping[str, Any]) -> list[Problem]:
    """A task's figures are known to the harness alone, so that any is taken for one."""
    metric, evaluation = values.get("metric", "loss"), values.get("evaluation", {})
    has_tasks = not check_evaluation(evaluation) and evaluation.get("tasks")
    known = (*OF_EVERY_TRAINING, *([metric] if has_tasks and "." in metric else []))
    return read_aim(metric, values.get("direction", "auto"), known)[1]


TRAINER = Trainer(nodes="num_nodes", check=check)
