"""Servers on loopback for the sources' tests, and a machine that reaches nothing else."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import hub as hub_server
from servers import s3 as s3_server

from kfp_finetune.sources import retries

SECRETS = ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
SECRETS += ("http_proxy", "https_proxy", "all_proxy", "AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_REGION")
SECRETS += ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL_STS")


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the person who runs the tests, no pauses, and no address but loopback."""
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_SECONDS", 0.01)
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: object) -> None:
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost"), address
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.Hub]:
    """An empty Hub that HF_ENDPOINT names."""
    with hub_server.serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="session")
def s3_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.S3]:
    """An S3 server for all tests."""
    with s3_server.serve(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture
def s3(s3_running: s3_server.S3, monkeypatch: pytest.MonkeyPatch) -> s3_server.S3:
    """The S3 server, with its endpoint and credentials in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_running.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.SECRET_KEY)
    return s3_running
