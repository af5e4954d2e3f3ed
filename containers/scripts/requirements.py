"""Writes steps.txt and train.txt: what pyproject.toml asks for, without and with the extras of training."""

import tomllib
from pathlib import Path

EXTRAS_OF_TRAINING = ("train", "loggers")

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
steps = project["dependencies"]
train = [line for extra in EXTRAS_OF_TRAINING for line in project["optional-dependencies"][extra]]
Path("steps.txt").write_text("\n".join(steps))
Path("train.txt").write_text("\n".join([*steps, *train]))
