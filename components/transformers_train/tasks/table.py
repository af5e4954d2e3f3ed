"""The transformer types."""

from collections.abc import Mapping

from kfp_finetune.components.transformers_train.tasks import (
    causal_lm,
    image_classification,
    masked_lm,
    question_answering,
    sequence_classification,
    token_classification,
)
from kfp_finetune.components.transformers_train.tasks.task import Task
from kfp_finetune.training.gate import OF_EVERY_TRAINING

MODULES = (
    sequence_classification,
    token_classification,
    question_answering,
    causal_lm,
    masked_lm,
    image_classification,
)

TASKS: Mapping[str, Task] = {module.TASK.name: module.TASK for module in MODULES}
"""What is peculiar to each transformer type, by its name."""


def known_figures(name: str) -> tuple[str, ...]:
    """The figures that an evaluation of a transformer type gives; those of every training for a name that is none."""
    figures = TASKS[name].figures if name in TASKS else ()
    return tuple(dict.fromkeys((*OF_EVERY_TRAINING, *figures)))
