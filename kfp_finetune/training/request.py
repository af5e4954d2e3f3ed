"""What a training is asked to be, and the names that are made from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp_finetune.manifests import Manifest
from kfp_finetune.workspace import content_key


@dataclass(frozen=True)
class Request:
    """A training that was asked for and has no fault but, perhaps, in its rows.

    Args:
        dataset: Of the published dataset.
        model: Of the published model.
    """

    dataset: Manifest
    model: Manifest

    @property
    def shaping(self) -> Mapping[str, Any]:
        """Every setting that shapes the result, and the number of the format in which they are read."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """The training's name, made from all that shapes its result."""
        return content_key({**self._parts, "model": self.model.key})

    @property
    def work(self) -> str:
        """The same without the model: equal for a training that does the same to another one's result."""
        return content_key(self._parts)

    @property
    def origin(self) -> str:
        """Address of the model that the series began with; empty if the model came without one."""
        return str(self.model.facts.get("origin", ""))

    @property
    def goes_on(self) -> bool:
        """Whether the series is to go on from its newest export."""
        return self.model.facts.get("start_from") == "latest"

    @property
    def _parts(self) -> dict[str, Any]:
        return {"dataset": self.dataset.key, **self.shaping}
