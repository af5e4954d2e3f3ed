"""Requests to Kubeflow Pipelines that all end, and that take no login page for an answer."""

from collections.abc import Mapping
from typing import Any

import kfp_server_api

REQUEST_TIMEOUT = (10, 60)
"""Seconds to connect and to read that bound every call."""

PAGE_START = 200
"""Characters in which a page tells that it is one."""


class BoundedApi(kfp_server_api.ApiClient):
    """A client whose every call ends, and that does not take a login page for an answer."""

    def request(self, *args: Any, _request_timeout: object = None, **kwargs: Any) -> Any:
        """Makes one HTTP request; see `kfp_server_api.ApiClient.request`."""
        try:
            answer = super().request(*args, _request_timeout=_request_timeout or REQUEST_TIMEOUT, **kwargs)
        except kfp_server_api.ApiException as error:
            raise _with_body(error) from error
        url = args[1] if len(args) > 1 else kwargs["url"]
        headers = getattr(answer, "urllib3_response", answer).headers
        if "/apis/" in url and "text/html" in headers.get("content-type", ""):
            raise _with_body(kfp_server_api.ApiException(401, "a login page came instead of an answer"))
        return answer


def get_bytes(api: kfp_server_api.ApiClient, host: str, path: str, query: Mapping[str, str]) -> bytes:
    """The answer to a request for which kfp_server_api has no method: logs and artifacts are not in its description.

    Args:
        api: Of the server.
        host: Address of the API or of the UI.
        path: After the host.
        query: Of the request; what is empty is left out.

    Raises:
        kfp_server_api.ApiException: If the server refuses it.
    """
    answer = api.call_api(
        path,
        "GET",
        query_params=[(name, value) for name, value in query.items() if value],
        auth_settings=["Bearer"],
        _preload_content=False,
        _return_http_data_only=True,
        _host=host,
    )
    return bytes(answer.data)


def get_text(api: kfp_server_api.ApiClient, host: str, path: str, query: Mapping[str, str]) -> str:
    """The answer to such a request as text; see `get_bytes`.

    Raises:
        kfp_server_api.ApiException: If the server refuses it, or shows a page instead, as the UI does for what it does
            not know.
    """
    text = get_bytes(api, host, path, query).decode(errors="replace")
    if text[:PAGE_START].lstrip().lower().startswith(("<!doctype html", "<html")):
        raise _with_body(kfp_server_api.ApiException(404, "a page came instead of an answer"))
    return text


def _with_body(error: kfp_server_api.ApiException) -> kfp_server_api.ApiException:
    """An error with a body: the client decodes it, and does not expect None."""
    error.body = error.body or b""
    return error
