"""What a configuration names is really built and called once, small and without weights, before a GPU is asked for.

Types say little about values: only the optimizer itself knows that a beta of 2 is none.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from kfp_finetune.components.torchtune_train.names import CHUNKED_LOSS
from kfp_finetune.errors import Problem

STEPS = 10
VOCABULARY = 8


def rehearse(config: Mapping[str, Any], sections: Collection[str]) -> list[Problem]:
    """Builds and calls what some sections of a configuration name.

    Args:
        config: Whole, with the user's overrides.
        sections: Of "optimizer", "lr_scheduler" and "loss"; no other is looked at.

    Returns:
        A problem for each that fails, with what it said.
    """
    problems = []
    for section, attempt in ATTEMPTS.items():
        if section not in sections:
            continue
        try:
            attempt(config)
        except Exception as error:
            given = {name: value for name, value in config[section].items() if name != "_component_"}
            name = config[section]["_component_"]
            problems.append(
                Problem(
                    f"overrides.{section}",
                    f"{given!r}, at which {name} fails: {error or type(error).__name__}",
                    f"arguments with which {name} can be called",
                    "Correct the values or take them out.",
                )
            )
    return problems


def _optimizer(config: Mapping[str, Any]) -> Any:
    import torch
    from omegaconf import OmegaConf
    from torchtune import config as torchtune_config

    parameter = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = torchtune_config.instantiate(OmegaConf.create(dict(config["optimizer"])), [parameter])
    if config["optimizer"]["_component_"].startswith("torch.optim."):  # torchao's would compile their step
        parameter.sum().backward()
        optimizer.step()
    return optimizer


def _lr_scheduler(config: Mapping[str, Any]) -> None:
    from omegaconf import OmegaConf
    from torchtune import config as torchtune_config

    plain = {"_component_": "torch.optim.SGD", "lr": 0.1}
    scheduler = torchtune_config.instantiate(
        OmegaConf.create(dict(config["lr_scheduler"])),
        _optimizer({"optimizer": plain}),
        num_training_steps=STEPS,
        last_epoch=-1,
    )
    scheduler.optimizer.step()
    scheduler.step()


def _loss(config: Mapping[str, Any]) -> None:
    import torch
    from omegaconf import OmegaConf
    from torchtune import config as torchtune_config

    loss = torchtune_config.instantiate(OmegaConf.create(dict(config["loss"])))
    if config["loss"]["_component_"] != CHUNKED_LOSS:
        loss(torch.zeros(1, VOCABULARY), torch.zeros(1, dtype=torch.long))


ATTEMPTS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "optimizer": _optimizer,
    "lr_scheduler": _lr_scheduler,
    "loss": _loss,
}
