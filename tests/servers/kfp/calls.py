"""A request on its way through the server."""

import email
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from servers.kfp.access import Access
from servers.kfp.store import Store

LARGEST_BODY = 100_000
"""Bytes of a request's body that are kept for the test; of a larger one none."""


@dataclass(frozen=True)
class Request:
    """A request, as a test wants to see it.

    Args:
        path: Without the query.
        headers: By their names in lower case.
        body: Empty if it was large.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Call:
    """A request with all that is needed to handle it.

    Args:
        body: The whole body.
        named: What the path names.
    """

    request: Request
    body: bytes
    store: Store
    access: Access
    named: dict[str, str] = field(default_factory=dict)

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters."""
        return self.request.query

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers."""
        return self.request.headers

    @property
    def namespace(self) -> str:
        """The namespace that the query names, where there are several."""
        return self.query.get("namespace", "") if self.access.multi_user else ""

    @cached_property
    def asked(self) -> dict[str, Any]:
        """The body's JSON."""
        return json.loads(self.body)

    def upload(self) -> tuple[str, bytes]:
        """Name and content of the file that came along."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        for part in email.message_from_bytes(head + self.body).walk():
            if part.get_param("name", header="content-disposition") == "uploadfile":
                content = part.get_payload(decode=True)
                return part.get_filename() or "", content if isinstance(content, bytes) else b""
        raise NotImplementedError("an upload without a file")


def read_target(target: str) -> tuple[str, dict[str, str]]:
    """The path and the query of what a request asks for."""
    parts = urlsplit(target)
    return unquote(parts.path), dict(parse_qsl(parts.query))
