"""Lists as the API server gives them: filtered, sorted, and in pages."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

from servers.kfp.refusals import invalid

Item = dict[str, Any]
Query = dict[str, str]

OPERATIONS = dict(
    enumerate(
        [
            "OPERATION_UNSPECIFIED",
            "EQUALS",
            "NOT_EQUALS",
            "GREATER_THAN",
            "GREATER_THAN_EQUALS",
            "LESS_THAN",
            "LESS_THAN_EQUALS",
            "IN",
            "IS_SUBSTRING",
        ]
    )
)
TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "EQUALS": lambda has, asked: has == asked,
    "NOT_EQUALS": lambda has, asked: has != asked,
    "GREATER_THAN": lambda has, asked: has > asked,
    "GREATER_THAN_EQUALS": lambda has, asked: has >= asked,
    "LESS_THAN": lambda has, asked: has < asked,
    "LESS_THAN_EQUALS": lambda has, asked: has <= asked,
    "IN": lambda has, asked: has in asked,
    "IS_SUBSTRING": lambda has, asked: asked.lower() in has.lower(),
}
FIELDS: tuple[str, ...] = (
    "name",
    "display_name",
    "description",
    "created_at",
    "namespace",
    "experiment_id",
    "storage_state",
    "state",
)
FIELDS += ("finished_at", "scheduled_at", "recurring_run_id", "status", "updated_at", "id")

DEFAULT_PAGE, LARGEST_PAGE = 20, 200
MISMATCH = (
    "page token does not match the supplied sort by and/or filtering criteria. Either specify the same criteria or "
    "leave the latter empty if page token is specified"
)


def page_of(items: Sequence[Item], query: Query, name: str, key: str) -> Item:
    """A page of the items that a query asks for.

    Args:
        items: All there are.
        query: With page_size, page_token, sort_by and filter.
        name: What the answer calls the list.
        key: Field with an item's id.
    """
    size = int(query.get("page_size") or 0)
    if size < 0:
        raise invalid(f"The page size should be greater than 0. Got {size}")
    size = min(size or DEFAULT_PAGE, LARGEST_PAGE)
    start: list[str] | None = None
    sort_by, spec = query.get("sort_by", ""), query.get("filter", "")
    if token := query.get("page_token"):
        criteria = _read_token(token)
        if (sort_by or spec) and [sort_by, spec] != criteria[:2]:
            raise invalid(MISMATCH)
        sort_by, spec, start = criteria[0], criteria[1], criteria[2]
    field, descending = _read_sort(sort_by, key)
    found = sorted(
        (item for item in items if _matches(item, spec, key)),
        key=lambda item: [_value(item, field, key), item[key]],
        reverse=descending,
    )
    rest = [item for item in found if _is_from(start, [_value(item, field, key), item[key]], descending)]
    answer: Item = {name: rest[:size], "total_size": len(found)} if found else {}
    if len(rest) > size:
        following = [_value(rest[size], field, key), rest[size][key]]
        answer["next_page_token"] = base64.b64encode(json.dumps([sort_by, spec, following]).encode()).decode()
    return answer


def _is_from(start: list[str] | None, place: list[str], descending: bool) -> bool:
    return start is None or (place <= start if descending else place >= start)


def _read_token(token: str) -> list[Any]:
    try:
        return json.loads(base64.b64decode(token, validate=True))
    except ValueError as error:
        raise invalid("Invalid package token.") from error


def _read_sort(text: str, key: str) -> tuple[str, bool]:
    words = text.lower().split()
    if len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
        formats = '"field_name", "field_name desc", or "field_name asc"'
        raise invalid(f"Received invalid sort by format {json.dumps(text)}. Supported format: {formats}")
    field = words[0] if words else "created_at"
    if field not in (*FIELDS, key):
        raise invalid(f"Invalid sorting field: {json.dumps(field)}: unsupported")
    return field, words[1:] == ["desc"]


def _value(item: Item, field: str, key: str) -> str:
    name = {"id": key, "name": "name" if "name" in item else "display_name"}.get(field, field)
    return str(item.get(name, ""))


def _matches(item: Item, spec: str, key: str) -> bool:
    return all(_meets(item, predicate, key) for predicate in _read_filter(spec))


def _read_filter(spec: str) -> list[Item]:
    if not spec:
        return []
    try:
        return json.loads(unquote(spec))["predicates"]
    except (ValueError, KeyError) as error:
        raise invalid(f"failed to parse valid filter from {json.dumps(spec)}: {error}") from error


def _meets(item: Item, predicate: Item, key: str) -> bool:
    named = predicate.get("operation")
    operation = OPERATIONS.get(named, named) if isinstance(named, int) else named
    if operation not in TESTS:
        raise invalid(f"Unknown predicate operation: {named}")
    field = predicate["key"]
    if field not in (*FIELDS, key):
        raise invalid(f"no support for filtering on unrecognized field {json.dumps(field)}")
    values = {name.replace("_", "").lower(): value for name, value in predicate.items()}
    if operation == "IN":
        asked = values["stringvalues"]["values"]
    else:
        asked = values.get("stringvalue", values.get("timestampvalue"))
    if asked is None:
        raise NotImplementedError(f"a filter by {sorted(predicate)}")
    return TESTS[operation](_value(item, field, key), asked)
