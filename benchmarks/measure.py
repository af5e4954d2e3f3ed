"""Measures processes: wall time and peak memory, in turns, and ratios with their spread."""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Args:
        name: What is compared.
        value: The figure, with its unit.
        bound: What it is to be.
        spread: Its range over the rounds.
    """

    name: str
    value: str
    bound: str
    spread: str


@dataclass(frozen=True)
class Run:
    """One process that was run.

    Args:
        seconds: Wall time.
        peak_bytes: Largest resident memory, of it or the largest of its children.
    """

    seconds: float
    peak_bytes: int


def run(command: Sequence[str], log: Path) -> Run:
    """Runs a command to its end.

    Args:
        command: The command.
        log: File for its output.

    Raises:
        RuntimeError: If it fails.
    """
    with log.open("w") as file:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
    if status != 0:
        raise RuntimeError(f"{' '.join(command)} failed: see {log}")
    return Run(seconds, usage.ru_maxrss * 1024)


def in_turns(rounds: int, *sides: Callable[[int], T]) -> list[list[T]]:
    """Measures each side once a round, so that a slow spell of the machine strikes all of them.

    Args:
        rounds: How often.
        sides: Called with the number of the round.

    Returns:
        What each side returned.
    """
    results: list[list[T]] = [[] for _ in sides]
    for number in range(rounds):
        for side, measured in zip(sides, results, strict=True):
            measured.append(side(number))
    return results


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, str]:
    """The median ratio over the rounds, and its range as text."""
    values = [one / other for one, other in zip(ours, theirs, strict=True)]
    return statistics.median(values), f"{min(values):.2f} to {max(values):.2f}"


def seconds_of(runs: Sequence[Run]) -> list[float]:
    """The wall time of each run."""
    return [one.seconds for one in runs]


def start_over(training: Path) -> None:
    """Removes the epochs of a training, so that it runs again.

    Args:
        training: Its directory.
    """
    for epoch in training.glob("epoch_*"):
        shutil.rmtree(epoch)
