"""SeaweedFS as an S3 server on loopback."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from tenacity import retry, stop_after_delay, wait_fixed

ACCESS_KEY, SECRET_KEY = "the-access-key", "the-secret-key"
PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
PORTS += ("s3.port", "s3.port.grpc")


@dataclass(frozen=True)
class S3:
    """A running server."""

    url: str

    @cache  # noqa: B019  one server lives as long as the tests
    def client(self) -> Any:
        """A client with the server's credentials."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
        )


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def serve(directory: Path) -> Iterator[S3]:
    """Runs the server for as long as the context lasts.

    Args:
        directory: For its data and its log.
    """
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = directory / "identities.json"
    keys = {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": True}}}
    config.write_text(json.dumps({"identities": [identity], "kms": keys}))
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    command = [str(Path(sys.executable).with_name("weed")), "server", f"-dir={directory}", "-ip=127.0.0.1"]
    command += [
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.config={config}",
        "-volume.max=1000",
        "-master.volumeSizeLimitMB=4096",
    ]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-volume.minFreeSpace=1"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    server = S3(f"http://127.0.0.1:{ports['s3.port']}")
    with (directory / "weed.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=directory)
        try:
            _wait_until_ready(server, process, directory / "weed.log")
            yield server
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(server: S3, process: subprocess.Popen, log: Path) -> None:
    @retry(stop=stop_after_delay(60), wait=wait_fixed(0.1), reraise=True)
    def write() -> None:
        assert process.poll() is None, log.read_text()[-2000:]
        client = server.client()
        client.create_bucket(Bucket="ready")
        client.put_object(Bucket="ready", Key="ready", Body=b"ready")

    @retry(stop=stop_after_delay(60), wait=wait_fixed(0.1), reraise=True)
    def begin() -> None:
        server.client().list_buckets()

    begin()
    write()
