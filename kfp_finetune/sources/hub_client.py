"""The HTTP client that `huggingface_hub` shares between its calls, which sends the token to the Hub alone."""

import os
from functools import cache
from typing import TYPE_CHECKING

from kfp_finetune.sources import retries

if TYPE_CHECKING:
    import httpx2


def endpoint() -> str | None:
    """The Hub that HF_ENDPOINT names; None for the usual one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def session() -> "httpx2.Client":
    """The client; a connection on which nothing comes for `retries.STALL_SECONDS` is given up."""
    from huggingface_hub import get_session

    _guard_token()
    client = get_session()
    client.timeout = retries.STALL_SECONDS
    return client


@cache
def _guard_token() -> None:
    """Adds `_keep_token_home` to every client to come: a listing's next page may be named on any server."""
    import httpx2
    from huggingface_hub import get_session, set_client_factory

    hooks = [*get_session().event_hooks["request"], _keep_token_home]
    set_client_factory(
        lambda: httpx2.Client(event_hooks={"request": hooks}, follow_redirects=True, timeout=retries.STALL_SECONDS)
    )


def _keep_token_home(request: "httpx2.Request") -> None:
    """Takes the token out of a request to another origin than the Hub's."""
    import httpx2
    from huggingface_hub import constants

    home = httpx2.URL(endpoint() or constants.ENDPOINT)
    if (request.url.scheme, request.url.host, request.url.port) != (home.scheme, home.host, home.port):
        request.headers.pop("Authorization", None)
