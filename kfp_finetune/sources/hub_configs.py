"""The configurations ("subsets") of a dataset on the Hub, as the head of its README.md declares them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfp_finetune.errors import refuse
from kfp_finetune.sources.cards import card_metadata, stated_text
from kfp_finetune.sources.names import LONGEST_PATH
from kfp_finetune.sources.patterns import matches_glob

MOST_PATTERNS = 10_000
"""Of a configuration that are read; repositories with a file for each hour of a year have fewer."""

SHOWN = 20


@dataclass(frozen=True)
class Config:
    """Which files belong to a configuration.

    Args:
        globs: Patterns of its files, relative to the repository; empty for all files.
        splits: The patterns of each split that is declared; empty where the files' names say it.
    """

    globs: tuple[str, ...] = ()
    splits: Mapping[str, list[str]] = field(default_factory=dict)

    def has(self, path: str) -> bool:
        """Whether a file of the repository belongs to it."""
        return not self.globs or any(matches_glob(path, glob) for glob in self.globs)


def choose_config(uri: str, name: str, readme: str, paths: Sequence[str]) -> Config:
    """The configuration of a name.

    Args:
        uri: The dataset as the user wrote it, for messages.
        name: Of the configuration; empty for the default one, or the only one, or all files if none is declared.
        readme: Text of the repository's README.md.
        paths: The repository's files.

    Raises:
        UserError: If there is none of that name, or none is the default.
    """
    declared = _declared(readme)
    if not name and not declared:
        return Config()
    if name in declared:
        return _read(declared[name])
    if name and any(path.startswith(f"{name}/") for path in paths):
        return Config((f"{name}/**",))
    default = next((key for key, entry in declared.items() if _is_true(entry.get("default"))), "default")
    chosen = default if default in declared else next(iter(declared), "")
    if name or (chosen != default and len(declared) > 1):
        raise refuse(
            "config",
            f"{name!r} of {uri}",
            f"one of {_listed(list(declared))}" if declared else "none, since the dataset declares none",
            "Name one of the dataset's configurations." if declared else "Leave it empty.",
        )
    return _read(declared[chosen])


def _declared(readme: str) -> dict[str, Mapping[str, Any]]:
    entries = card_metadata(readme).get("configs")
    if not isinstance(entries, list):
        return {}
    named = [(stated_text(entry, "config_name"), entry) for entry in entries if isinstance(entry, Mapping)]
    return {name: entry for name, entry in named if name}


def _is_true(value: object) -> bool:
    return isinstance(value, str) and value.lower() == "true"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _read(entry: Mapping[str, Any]) -> Config:
    """The patterns of an entry; a part of it that is no plain text, or one pattern too many, is left out."""
    folder = stated_text(entry, "data_dir").strip("/")
    prefix = f"{folder}/" if folder and folder != "." else ""
    files = entry.get("data_files")
    if not files:
        return Config((f"{prefix}**",) if prefix else ())
    splits: dict[str, list[str]] = {}
    globs: list[str] = []
    for item in (files if isinstance(files, list) else [files])[:MOST_PATTERNS]:
        paths = item.get("path", []) if isinstance(item, Mapping) else item
        texts = (paths if isinstance(paths, list) else [paths])[: MOST_PATTERNS - len(globs)]
        short = [path for path in texts if isinstance(path, str) and len(path) <= LONGEST_PATH]
        named = [prefix + path.removeprefix("./") for path in short]
        globs += named
        if isinstance(item, Mapping) and (split := stated_text(item, "split")):
            splits.setdefault(split, []).extend(named)
    return Config(tuple(globs), splits)
