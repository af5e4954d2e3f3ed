"""The parameters of a pipeline that distils a teacher into a smaller model."""

from collections.abc import Mapping
from typing import Any

from kfp_finetune.client.checks.torchtune import check_all
from kfp_finetune.client.checks.trainer import Trainer
from kfp_finetune.components.plan_distillation.settings import check_values
from kfp_finetune.errors import Problem
from kfp_finetune.training.gate import OF_EVERY_TRAINING

RATIO = "kd_ratio"


def check(values: Mapping[str, Any], same_machine: bool) -> list[Problem]:
    """What is wrong with the settings; see `Trainer`."""
    return check_all(values, same_machine, check_values(values), OF_EVERY_TRAINING)


TRAINER = Trainer(nodes="num_nodes", check=check)
