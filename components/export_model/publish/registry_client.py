"""The registry's own client, for servers of both versions of its API.

`model_registry` 0.3.18 asks for version 1. Servers of mid-2026 and before know v1alpha3 alone, which differs in the
path alone, as far as models, versions and artifacts go.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from model_registry.core import ModelRegistryAPIClient
from mr_openapi import ApiClient, Configuration, ModelRegistryServiceApi

PATH = "/api/model_registry/"
VERSIONS = ("v1", "v1alpha3")
"""Of the API, the newest first; it is the one that the client asks for."""


class _Api(ApiClient):
    """What sends requests, to another version's paths."""

    def __init__(self, configuration: Configuration, version: str):
        super().__init__(configuration)
        self.version = version

    async def call_api(self, method: str, url: str, *arguments: Any, **options: Any) -> Any:
        url = url.replace(f"{PATH}{VERSIONS[0]}/", f"{PATH}{self.version}/", 1)
        return await super().call_api(method, url, *arguments, **options)


@dataclass
class Client(ModelRegistryAPIClient):
    """What `model_registry.ModelRegistry` itself calls.

    That class cannot finish a version that was begun, waits five minutes for each answer and patches asyncio.

    Args:
        version: Of the API.
    """

    version: str = VERSIONS[0]

    @property
    def address(self) -> str:
        """Address of the API."""
        return f"{self.config.host}{PATH}{self.version}"

    @asynccontextmanager
    async def get_client(self) -> AsyncIterator[ModelRegistryServiceApi]:
        """What makes the calls, for one of them."""
        async with _Api(self.config, self.version) as api:
            yield ModelRegistryServiceApi(api)


def make_client(server: str, token: str, version: str) -> Client:
    """A client; nothing is asked yet.

    Args:
        server: Such as "https://registry.example.com:443"; its certificate is checked with those of SSL_CERT_FILE.
        token: Of an account; empty for none.
        version: Of the API.
    """
    return Client(Configuration(host=server, access_token=token or None), version)
