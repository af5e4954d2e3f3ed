"""What a user may ask of an export beyond the model itself: how large its files are, and a quantised copy."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from kfp_finetune.errors import Problem
from kfp_finetune.settings import STRICT, read_settings, whole_numbers
from kfp_finetune.training.plan import CAUSAL_LM

WHAT = "export"
"""The parameter, for messages."""

INT8, INT4 = "int8", "int4"
SMALLEST_SHARD = 10**6
"""Bytes; smaller files would only be many."""

MOST_INCREASE: Mapping[str, float] = {"": 0.0, INT8: 0.02, INT4: 0.1}
"""By how much the perplexity may rise unless the user says so, as a fraction, by what the weights are quantised to."""

SHARES: Mapping[str, float] = {"": 0.0, INT8: 0.65, INT4: 0.55}
"""Of the model's bytes, what a quantised copy takes at most: embeddings, a third of a small model, stay as they are."""

_UNITS = {"": 1, **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", start=1)}}
_UNITS |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", start=1)}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([KMGT]i?B|)")


def _bytes(given: Any) -> Any:
    """A size in bytes, from a text such as "5GB"."""
    if not isinstance(given, str):
        return given
    found = _SIZE.fullmatch(given.strip())
    if found is None:
        raise ValueError('a number of bytes, or a size such as "500MB", "5GB" or "2GiB"')
    return int(float(found[1]) * _UNITS[found[2]])


@dataclass(frozen=True, config=STRICT)
class ExportSettings:
    """The parameter `export`.

    Args:
        max_shard_size: Bytes of the largest file of weights; one tensor that is larger has a file of its own. Default:
            files as the training wrote them.
        quantize: "int8" or "int4" for a copy with weights of so few bits beside the model. Default: none.
        max_perplexity_increase: By how much the copy's perplexity on the held-out rows may be above the model's, as a
            fraction. Default: 0.02 for int8, 0.1 for int4.
    """

    max_shard_size: Annotated[int, Field(ge=SMALLEST_SHARD), BeforeValidator(_bytes)] | None = None
    quantize: Literal["int8", "int4"] | None = None
    max_perplexity_increase: Annotated[float, Field(ge=0, le=100)] | None = None

    @property
    def most_increase(self) -> float:
        """The bound on the copy's perplexity, as a fraction."""
        default = MOST_INCREASE[self.quantize or ""]
        return default if self.max_perplexity_increase is None else self.max_perplexity_increase

    @property
    def facts(self) -> dict[str, Any]:
        """What an export's manifest says of its settings: none of those that change nothing."""
        of_copy = {"quantize": self.quantize, "max_perplexity_increase": self.most_increase} if self.quantize else {}
        return of_copy | ({"max_shard_size": self.max_shard_size} if self.max_shard_size else {})

    def are_those_of(self, facts: Mapping[str, Any]) -> bool:
        """Whether an export was made with these.

        Args:
            facts: What its manifest says.
        """
        return {name: facts[name] for name in self.__dataclass_fields__ if name in facts} == self.facts

    def bytes_beside(self, model: int) -> int:
        """The most that these settings add to what an export takes.

        Args:
            model: Bytes of the model's weights.
        """
        return int(model * (bool(self.max_shard_size) + SHARES[self.quantize or ""]))


def read_export_settings(given: Any) -> tuple[ExportSettings, list[Problem]]:
    """What a user set, and what is wrong with it.

    Args:
        given: The value of the parameter.

    Returns:
        The settings, with defaults if there is a problem.
    """
    if not isinstance(given, Mapping):
        allowed = 'an object such as {"max_shard_size": "5GB", "quantize": "int8"}'
        return ExportSettings(), [Problem(WHAT, repr(given), allowed, "Correct it, or leave it empty.")]
    settings, problems = read_settings(ExportSettings, whole_numbers(given), f"{WHAT}.")
    if settings and settings.max_perplexity_increase is not None and not settings.quantize:
        allowed = f"a bound on a quantised copy, with {WHAT}.quantize"
        name = f"{WHAT}.max_perplexity_increase"
        problems = [
            Problem(name, f"{settings.max_perplexity_increase}", allowed, f"Set {WHAT}.quantize or take it out.")
        ]
    return settings if settings and not problems else ExportSettings(), problems


def check_export(given: Any, transformer_type: str = CAUSAL_LM) -> list[Problem]:
    """What is wrong with the parameter `export`, as far as it can be told without the model.

    Args:
        given: The value of the parameter.
        transformer_type: The class of transformers that loads the model.
    """
    settings, problems = read_export_settings(given)
    if settings.quantize and transformer_type != CAUSAL_LM:
        allowed = f"no quantised copy, or a model for {CAUSAL_LM}: the copy is proven by its perplexity"
        problems.append(
            Problem(f"{WHAT}.quantize", f"{settings.quantize}, with {transformer_type}", allowed, "Take it out.")
        )
    return problems
