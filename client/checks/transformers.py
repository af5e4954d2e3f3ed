"""The parameters of a pipeline that trains with transformers, as far as it can be told without transformers itself."""

from collections.abc import Mapping
from typing import Any

from kfp_finetune.client.checks.trainer import Trainer
from kfp_finetune.components.transformers_train import lora
from kfp_finetune.components.transformers_train.arguments import RANGES, WHAT, check_value, refused
from kfp_finetune.components.transformers_train.place import check_resources
from kfp_finetune.components.transformers_train.settings import check_values
from kfp_finetune.components.transformers_train.tasks.table import known_figures
from kfp_finetune.errors import Problem
from kfp_finetune.training.exporting import check_export
from kfp_finetune.training.gate import check_gate
from kfp_finetune.training.plan import CAUSAL_LM

TYPE = "transformer_type"


def check(values: Mapping[str, Any], same_machine: bool) -> list[Problem]:
    """What is wrong with the settings, the resources, and the arguments of transformers and peft; see `Trainer`."""
    launcher, processes = values.get("launcher", "process"), values.get("num_procs_per_worker", 1)
    resources = values.get("resources_per_worker", {})
    return [
        *_check_settings(values),
        *_check_arguments(values.get(WHAT, {})),
        *lora.check_values(values.get(lora.WHAT, {})),
        *check_resources(resources, launcher, processes, values.get("trainjob", {})),
        *check_gate(values.get("gate", {}), known_figures(str(values.get(TYPE)))),
        *check_export(values.get("export", {}), str(values.get(TYPE) or CAUSAL_LM)),
    ]


def _check_settings(values: Mapping[str, Any]) -> list[Problem]:
    """That no type was given is told by whoever knows whether the pipeline asks for one."""
    return [problem for problem in check_values(values) if problem.what != TYPE or values.get(TYPE)]


def _check_arguments(given: Mapping[str, Any]) -> list[Problem]:
    """Other names and values are left to the step: they are those of the transformers that trains."""
    ranges = [check_value(f"{WHAT}.{name}", value, *RANGES[name]) for name, value in given.items() if name in RANGES]
    return refused(given) + [problem for problem in ranges if problem]


TRAINER = Trainer(nodes="num_workers", check=check)
