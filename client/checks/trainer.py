"""What is peculiar to the values of one way to train, in one shape for all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_finetune.errors import Problem


@dataclass(frozen=True)
class Trainer:
    """A way to train.

    Args:
        nodes: The parameter that says on how many machines.
        check: What is wrong with its own parameters; told whether this machine is the one that trains, so that its
            packages and environment are those that count.
    """

    nodes: str
    check: Callable[[Mapping[str, Any], bool], list[Problem]]
