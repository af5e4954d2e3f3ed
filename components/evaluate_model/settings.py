"""What a user may ask of an evaluation beyond the loss on the held-out rows."""

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

from pydantic import Field, StringConstraints
from pydantic.dataclasses import dataclass

from kfp_finetune.errors import Problem
from kfp_finetune.settings import STRICT, read_settings, whole_numbers

WHAT = "evaluation"
"""The parameter, for messages."""

FEWEST_QUESTIONS = "fewest_questions"
"""What is noted in `Plan.evaluation` beside the settings: the number of questions of the smallest task."""

TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,199}")


@dataclass(frozen=True, config=STRICT)
class EvaluationSettings:
    """The parameter `evaluation`.

    Args:
        tasks: Names of tasks of lm-evaluation-harness, such as "arc_easy"; a group's name stands for its tasks.
        num_fewshot: Solved examples before each question. Default: as each task says.
        limit: Questions of each task; 0 for all.
        apply_chat_template: Whether questions are put to the model as a conversation.
        data: Where a task's dataset lies, if not under its name on the Hub: {"allenai/ai2_arc": "s3://mirror/arc"}.
    """

    tasks: list[str] = field(default_factory=list)
    num_fewshot: Annotated[int, Field(ge=0, le=100)] | None = None
    limit: Annotated[int, Field(ge=0)] = 0
    apply_chat_template: bool = False
    data: dict[str, Annotated[str, StringConstraints(min_length=1)]] = field(default_factory=dict)


def read_evaluation_settings(given: Any) -> tuple[EvaluationSettings, list[Problem]]:
    """What a user set, and what is wrong with it as far as it can be told without the harness.

    Args:
        given: The value of the parameter.
    """
    if not isinstance(given, Mapping):
        allowed = 'an object such as {"tasks": ["arc_easy"], "limit": 200}'
        return EvaluationSettings(), [Problem(WHAT, repr(given), allowed, "Correct it, or leave it empty.")]
    settings, problems = read_settings(EvaluationSettings, whole_numbers(given), f"{WHAT}.")
    if settings is None:
        return EvaluationSettings(), problems
    problems = [
        Problem(f"{WHAT}.tasks", repr(name), "names of tasks of lm-evaluation-harness", "Correct the name.")
        for name in settings.tasks
        if not TASK.fullmatch(name)
    ]
    others = [name for name in ("num_fewshot", "limit", "apply_chat_template", "data") if given.get(name)]
    if others and not settings.tasks:
        allowed = f"at least one task beside {', '.join(others)}"
        problems.append(Problem(f"{WHAT}.tasks", "none", allowed, "Name one, or leave evaluation empty."))
    return settings, problems


def check_evaluation(given: Any) -> list[Problem]:
    """What is wrong with the parameter `evaluation`, as far as it can be told without the harness.

    Args:
        given: The value of the parameter.
    """
    return read_evaluation_settings(given)[1]
