"""The head of a README.md, in which repositories state facts about themselves as YAML."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

CARD_BYTES = 2**20
"""Of a README.md that are read: the facts stand at its head."""

DEEPEST = 50
LONGEST_FACT = 200
NOTHING = ("null", "~")

HEAD = re.compile(r"\s*---[ \t]*\r?\n(.*?)\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def card_metadata(text: str) -> Mapping[str, Any]:
    """What the head of a README.md states; nothing if it has none, or one that cannot be read.

    Every value is a text, a list or a mapping, as YAML has it before it guesses numbers, dates and merges. A value may
    stand in several places (an alias), so that printing or copying all of it may take for ever: take single texts.

    Args:
        text: The whole README.md, or its beginning; what is beyond `CARD_BYTES` is not looked at.
    """
    import yaml

    head = HEAD.match(text.removeprefix("\ufeff")[:CARD_BYTES])
    if not head:
        return {}
    try:
        loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
        stated = yaml.load(head[1], loader) if _is_shallow(yaml.parse(head[1], loader)) else {}
    except (ValueError, TypeError, yaml.YAMLError):
        return {}
    return stated if isinstance(stated, dict) else {}


def _is_shallow(events: Iterable[Any]) -> bool:
    """Whether at most `DEEPEST` lists and mappings stand in each other: loading very deep ones ends the process."""
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            return False
    return True


def stated_text(metadata: Mapping[str, Any], name: str) -> str:
    """A fact that is one text, of at most `LONGEST_FACT` characters; else empty.

    Args:
        metadata: What `card_metadata` found.
        name: Of the fact.
    """
    value = metadata.get(name)
    return value[:LONGEST_FACT] if isinstance(value, str) and value not in NOTHING else ""
