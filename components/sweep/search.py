"""The space that a sweep searches: what it may vary, what is wrong with it, and the combinations that are tried."""

import itertools
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any, get_type_hints

from pydantic import Field
from pydantic.dataclasses import dataclass as settings_class

from kfp_finetune.components.torchtune_train.settings import ON_THE_FORM, DataSettings, TrainSettings, check_values
from kfp_finetune.errors import Problem
from kfp_finetune.settings import STRICT, read_settings, whole_numbers

WHAT = "search"
"""The parameter, for messages."""

MOST_TRIALS = 100

_OF_THE_ROWS = frozenset({"max_seq_len", *DataSettings.__dataclass_fields__})
_OF_THE_RUN = frozenset({"num_nodes", "num_procs_per_node", "checkpoint_minutes", "metric_loggers", "overrides"})
SEARCHABLE = sorted(TrainSettings.__dataclass_fields__.keys() - _OF_THE_ROWS - _OF_THE_RUN)
"""Settings that a sweep may vary: those that leave the held-out rows as they are, so that losses can be compared."""

_NUMBERS = {name: kind for name, kind in get_type_hints(TrainSettings).items() if kind in (int, float)}
_DRAWS_FOR_ONE = 200
_DIGITS = 4

Values = Mapping[str, Any]
"""A value for each setting that varies."""


@settings_class(frozen=True, config=STRICT)
class Range:
    """Numbers to draw from.

    Args:
        min: The least.
        max: The largest.
        log: Whether each order of magnitude is as likely as the others, rather than each number.
    """

    min: Annotated[float, Field(allow_inf_nan=False)]
    max: Annotated[float, Field(allow_inf_nan=False)]
    log: bool = False


@dataclass(frozen=True)
class Search:
    """What is to be tried.

    Args:
        space: By setting, its choices or the range that they are drawn from.
        samples: How many combinations to draw; 0 for all there are.
        seed: Of the draws.
    """

    space: Mapping[str, Sequence[Any] | Range] = field(default_factory=dict)
    samples: int = 0
    seed: int = 0


def read_search(search: Any, samples: Any, seed: Any, advanced: Any = None) -> tuple[Search, list[Problem]]:
    """What a user wants searched, and everything that is wrong with it as far as it can be told without the model.

    Args:
        search: The parameter `search`: {"learning_rate": [1e-4, 3e-4], "lora_rank": {"min": 4, "max": 64}}.
        samples: The parameter `samples`.
        seed: The parameter `search_seed`.
        advanced: The parameter `advanced`, which may not name a setting that varies.

    Returns:
        The search, empty if there is a problem.
    """
    problems = [*_check_whole("samples", samples, MOST_TRIALS), *_check_whole("search_seed", seed, 2**31 - 1)]
    if not isinstance(search, Mapping) or not search:
        allowed = 'an object of settings, such as {"learning_rate": [1e-4, 3e-4], "lora_rank": [8, 16]}'
        return Search(), [*problems, Problem(WHAT, repr(search), allowed, "Say which settings to vary.")]
    space: dict[str, Sequence[Any] | Range] = {}
    for name, given in whole_numbers(search).items():
        found, wrong = _read_dimension(name, given)
        problems += wrong
        if found is not None:
            space[name] = found
    problems += _check_twice(space, advanced)
    if problems:
        return Search(), problems
    asked = Search(space, samples, seed)
    problems = _check_size(asked)
    return (Search() if problems else asked), problems


def _check_whole(name: str, given: Any, most: int) -> list[Problem]:
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= most:
        return []
    return [Problem(name, repr(given), f"a whole number from 0 to {most:,}", f"Correct {name} and run again.")]


def _read_dimension(name: str, given: Any) -> tuple[Sequence[Any] | Range | None, list[Problem]]:
    what = f"{WHAT}.{name}"
    if name not in SEARCHABLE:
        return None, [_unsearchable(name)]
    if isinstance(given, Mapping):
        return _read_range(name, given)
    if not isinstance(given, list) or not given:
        allowed = 'a list of values, or {"min": ..., "max": ...} with samples'
        return None, [Problem(what, repr(given), allowed, "Correct it.")]
    problems = [problem for value in given for problem in check_value(name, value)]
    if len({_canonical(value) for value in given}) < len(given):
        problems.append(Problem(what, repr(given), "each value once", "Take the repeated ones out."))
    return given, problems


def _unsearchable(name: str) -> Problem:
    if name in _OF_THE_ROWS:
        allowed = "settings that leave the held-out rows as they are: losses on other rows could not be compared"
        return Problem(WHAT, repr(name), allowed, "Set it for all trials instead.")
    if name in _OF_THE_RUN:
        return Problem(WHAT, repr(name), "settings of the training itself", "Set it for all trials instead.")
    near = get_close_matches(name, SEARCHABLE, n=1)
    mend = f"Did you mean {near[0]}?" if near else "Take it out."
    return Problem(WHAT, repr(name), ", ".join(SEARCHABLE), mend)


def _read_range(name: str, given: Mapping[str, Any]) -> tuple[Range | None, list[Problem]]:
    what = f"{WHAT}.{name}"
    if name not in _NUMBERS:
        return None, [Problem(what, repr(given), "a list of values, since it is no number", "List the values.")]
    found, problems = read_settings(Range, given, f"{what}.")
    if found is None:
        return None, problems
    ends = [given["min"], given["max"]]
    problems = [problem for value in ends for problem in check_value(name, value)]
    if not found.min < found.max:
        problems.append(Problem(what, repr(ends), "a min below max", "Correct it."))
    if found.log and found.min <= 0:
        problems.append(Problem(f"{what}.min", repr(given["min"]), "more than 0 with log", "Raise min, or drop log."))
    return found, problems


def check_value(name: str, value: Any) -> list[Problem]:
    """What is wrong with one value of a setting that varies.

    Args:
        name: The setting.
        value: The value.
    """
    wrong = check_values(with_values({}, {name: value}))
    return [Problem(f"{WHAT}.{name}", problem.given, problem.allowed, problem.mend) for problem in wrong]


def _check_twice(space: Values, advanced: Any) -> list[Problem]:
    given = advanced if isinstance(advanced, Mapping) else {}
    return [
        Problem(f"advanced.{name}", repr(given[name]), f"nothing, since {WHAT} varies it", "Take one of them out.")
        for name in space
        if name in given
    ]


def _check_size(search: Search) -> list[Problem]:
    ranges = [name for name, values in search.space.items() if isinstance(values, Range)]
    if ranges and not search.samples:
        allowed = "how many combinations to draw, since a range has no grid"
        given = f"0, with a range for {', '.join(ranges)}"
        return [Problem("samples", given, allowed, f"Set samples, or list the values of {', '.join(ranges)}.")]
    size = _grid_size(search)
    if not search.samples and size > MOST_TRIALS:
        allowed = f"at most {MOST_TRIALS} combinations in a grid"
        return [Problem(WHAT, f"{size:,} combinations", allowed, "List fewer values, or set samples.")]
    return []


def _grid_size(search: Search) -> int:
    return math.prod(len(values) for values in search.space.values() if not isinstance(values, Range))


def with_values(settings: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """A training's settings with those that vary at their place: on the form, or in `advanced`.

    Args:
        settings: Of every trial, by name.
        values: Of one.
    """
    own = {name: value for name, value in values.items() if name in ON_THE_FORM}
    others = {name: value for name, value in values.items() if name not in ON_THE_FORM}
    advanced = {"advanced": {**settings.get("advanced", {}), **others}} if others else {}
    return {**settings, **own, **advanced}


def draw(search: Search) -> list[dict[str, Any]]:
    """The combinations that are tried, none twice: the whole grid, or the same draws for the same seed.

    Where there are fewer combinations than samples these are all of them.

    Args:
        search: Without a problem.
    """
    names = list(search.space)
    lists = [values for values in search.space.values() if not isinstance(values, Range)]
    if len(lists) == len(names):
        return [dict(zip(names, values, strict=True)) for values in _from_grid(lists, search)]
    chance = random.Random(search.seed)
    draws = (
        {name: _draw_one(name, values, chance) for name, values in search.space.items()}
        for _ in range(_DRAWS_FOR_ONE * search.samples)
    )
    return list(itertools.islice(_distinct(draws), search.samples))


def _from_grid(lists: Sequence[Sequence[Any]], search: Search) -> Iterable[Sequence[Any]]:
    size = _grid_size(search)
    if not search.samples or search.samples >= size:
        return itertools.product(*lists)
    picked = sorted(random.Random(search.seed).sample(range(size), search.samples))
    return [_combination(lists, index) for index in picked]


def _combination(lists: Sequence[Sequence[Any]], index: int) -> list[Any]:
    """The combination of a number, as `itertools.product` counts them."""
    found = []
    for values in reversed(lists):
        index, place = divmod(index, len(values))
        found.append(values[place])
    return found[::-1]


def _draw_one(name: str, values: Sequence[Any] | Range, chance: random.Random) -> Any:
    if not isinstance(values, Range):
        return chance.choice(values)
    drawn = (
        math.exp(chance.uniform(math.log(values.min), math.log(values.max)))
        if values.log
        else chance.uniform(values.min, values.max)
    )
    if _NUMBERS[name] is int:
        whole = round(drawn) if values.log else chance.randint(int(values.min), int(values.max))
        return min(max(whole, int(values.min)), int(values.max))
    return min(max(float(f"{drawn:.{_DIGITS}g}"), values.min), values.max)


def _distinct(draws: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    seen = set()
    for one in draws:
        if (canonical := _canonical(one)) not in seen:
            seen.add(canonical)
            yield one


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
