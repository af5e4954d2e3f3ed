"""The functions that a conversation's assistant can call, and its calls, in OpenAI's form; others are refused.

Parquet holds the objects of a column as one structure, in which an absent key is None, so None keys are dropped. Text
with JSON is read as it stands.
"""

import json
from collections.abc import Mapping
from typing import Any

TOOL_FORM = 'function schemas as OpenAI has them, {"type": "function", "function": {"name": ..., ...}}, or their JSON'
CALL_FORM = (
    'calls as OpenAI has them, {"type": "function", "function": {"name": ..., "arguments": ...}}, '
    "with arguments that are an object or its JSON"
)


def read_tools(value: Any) -> list[dict[str, Any]] | None:
    """The functions that can be called.

    Args:
        value: A list of schemas, or JSON of one; None or nothing for no functions.

    Returns:
        The schemas, or None if the value is something else.
    """
    tools = (_parse(value.strip() or "[]") if isinstance(value, str) else without_none(value)) or []
    return tools if isinstance(tools, list) and all(_named(tool) for tool in tools) else None


def read_calls(value: Any) -> list[dict[str, Any]] | None:
    """The calls of a turn.

    Args:
        value: A list of calls; None for no call.

    Returns:
        The calls with arguments as objects, or None if the value is something else.
    """
    value = without_none(value) or []
    if not isinstance(value, list) or not all(_named(call) for call in value):
        return None
    calls = []
    for call in value:
        arguments = call["function"].get("arguments", {})
        if isinstance(arguments, str):
            arguments = _parse(arguments or "{}")
        if not isinstance(arguments, dict):
            return None
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return calls


def without_none(value: Any) -> Any:
    """A value without the keys that are None, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_none(entry) for key, entry in value.items() if entry is not None}
    return [without_none(entry) for entry in value] if isinstance(value, list) else value


def _named(entry: Any) -> bool:
    function = entry.get("function") if isinstance(entry, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return isinstance(name, str) and bool(name)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
