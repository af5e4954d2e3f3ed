"""Lists that the server gives page by page, and filters by name."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from kfp_finetune.client.server.calls import ask

PAGE_SIZE = 100


def listed(what: str, call: Callable[..., Any], field: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """Everything in a list, newest first, page by page.

    Args:
        what: What the list is for, to follow "to": "list the runs".
        call: A method of kfp_server_api that gives a page.
        field: The answer's field with the items.
        args: For the call.
        kwargs: For the call.
    """
    token = ""
    while True:
        page = ask(
            what, call, *args, page_size=PAGE_SIZE, page_token=token, sort_by="created_at desc", **_given(kwargs)
        )
        yield from getattr(page, field) or []
        token = page.next_page_token or ""
        if not token:
            return


def named(name: str) -> str:
    """The filter for one name, as kfp.Client writes it.

    Args:
        name: The display name.
    """
    return json.dumps({"predicates": [{"operation": 1, "key": "display_name", "stringValue": name}]})


def _given(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if value}
