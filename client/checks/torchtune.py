"""The parameters of a pipeline that trains with torchtune."""

from collections.abc import Mapping, Sequence
from typing import Any

from kfp_finetune.client.checks.trainer import Trainer
from kfp_finetune.components.evaluate_model.settings import check_evaluation
from kfp_finetune.components.torchtune_train.settings import TrainSettings, check_values, unfold_advanced
from kfp_finetune.errors import Problem
from kfp_finetune.settings import read_partly
from kfp_finetune.training.exporting import check_export, read_export_settings
from kfp_finetune.training.gate import OF_EVERY_TRAINING, check_gate, named_of_tasks


def check(values: Mapping[str, Any], same_machine: bool) -> list[Problem]:
    """What is wrong with torchtune's settings; see `Trainer`."""
    return check_all(values, same_machine, check_values(values), OF_EVERY_TRAINING)


def check_all(
    values: Mapping[str, Any], same_machine: bool, of_settings: Sequence[Problem], figures: Sequence[str]
) -> list[Problem]:
    """What is wrong with the values of a training with torchtune, whatever its rows are.

    Args:
        values: By name.
        same_machine: Whether this machine is the one that trains.
        of_settings: What is wrong with each of the settings by itself.
        figures: That a gate can bound beside those of tasks.
    """
    evaluation, gate = values.get("evaluation", {}), values.get("gate", {})
    of_tasks = check_evaluation(evaluation)
    has_tasks = of_tasks or evaluation.get("tasks")
    return [
        *of_settings,
        *_check_together(values, same_machine),
        *of_tasks,
        *check_gate(gate, (*figures, *(named_of_tasks(gate) if has_tasks else ()))),
        *check_export(values.get("export", {})),
    ]


def _check_together(values: Mapping[str, Any], same_machine: bool) -> list[Problem]:
    """What is wrong with settings of which each is allowed; those that are not count as not given."""
    train = _read_train(values) if values.keys() & {"advanced", "overrides"} else None
    if train is None:
        return []
    from kfp_finetune.components.torchtune_train.check import check_alone, check_copy
    from kfp_finetune.components.torchtune_train.loggers import LOGGERS, check_loggers

    problems = check_alone(train)
    if not check_export(values.get("export", {})):
        problems += check_copy(train.quantization_aware, read_export_settings(values.get("export", {}))[0].quantize)
    if not same_machine:
        of_this_machine = check_loggers({name: {} for name in train.metric_loggers if name in LOGGERS})
        problems = [problem for problem in problems if problem not in of_this_machine]
    return problems + _check_overrides(train.overrides)


def _read_train(values: Mapping[str, Any]) -> TrainSettings | None:
    known = TrainSettings.__dataclass_fields__.keys()
    settings = {name: value for name, value in unfold_advanced(values)[0].items() if name in known}
    return read_partly(TrainSettings, settings, needed="method")[0]


def _check_overrides(overrides: Mapping[str, Any]) -> list[Problem]:
    """What can be told without torch: the arguments of an optimizer, a scheduler or a loss are left to the step."""
    from kfp_finetune.components.torchtune_train.overrides import SECTIONS, check_overrides, nest

    sections = {key: {"_component_": names[0]} for key, names in SECTIONS.items()}
    for_torch = {
        key
        for key, value in nest(overrides).items()
        if key in SECTIONS and isinstance(value, Mapping) and {**sections[key], **value}["_component_"] in SECTIONS[key]
    }
    return check_overrides(sections, {key: value for key, value in nest(overrides).items() if key not in for_torch})


TRAINER = Trainer(nodes="num_nodes", check=check)
