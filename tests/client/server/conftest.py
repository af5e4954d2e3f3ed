"""A server of Kubeflow Pipelines on loopback, and a connection to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import kfp

from kfp_finetune.client.server.connection import Address, Server, connect


@pytest.fixture(autouse=True)
def nobody_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of whoever runs the tests."""
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH", "SSL_CERT_FILE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))


@pytest.fixture
def address() -> str:
    """Whose address the client is given: the UI's, the API's."""
    return "ui"


@pytest.fixture
def remote(address: str) -> Iterator[kfp.Server]:
    with kfp.serve(archives_logs=True, address=address) as running:
        yield running


@pytest.fixture
def server(remote: kfp.Server) -> Server:
    return connect(Address(host=remote.url))
