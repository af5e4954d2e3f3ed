"""`kfp-finetune doctor`: what it says of an address of Kubeflow Pipelines, and where there is no cluster."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from servers import kfp
from servers.kubernetes_api import say, serving

from kfp_finetune.client.doctor.kfp import check_kfp
from kfp_finetune.client.doctor.report import State
from kfp_finetune.client.doctor.resources import check_gpus
from kfp_finetune.client.server.connection import Address
from kfp_finetune.cluster.client import Cluster

KFP_FINETUNE = Path(sys.executable).parent / "kfp-finetune"


@pytest.fixture
def served() -> Iterator[Callable[[int, bytes], str]]:
    """Serve one answer to every request; return the address."""
    with ExitStack() as servers:

        def serve(status: int, body: bytes) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, *arguments: object) -> None:
                    pass

            server = HTTPServer(("127.0.0.1", 0), Handler)
            servers.callback(server.server_close)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield serve


def test_pipelines_that_answer_are_told_with_their_version() -> None:
    with kfp.serve(prefix="/pipeline") as remote:
        for given in (remote.url, f"{remote.url}/"):
            check = check_kfp(Address(given))
            assert (check.state, check.mend) == (State.PASS, "")
            assert check.found == f"{remote.url}"


@pytest.mark.parametrize("gate", ["kfp", "istio", "dex"])
def test_a_login_before_pipelines_is_a_warning_and_a_wrong_token_a_failure(gate: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("good")
    with kfp.serve(multi_user=True, tokens={"good"}) as remote:
        remote.gate = gate
        assert check_kfp(Address(remote.url, "team")).state == State.WARN
        address = Address(remote.url, "team", str(tmp_path / "token"))
        assert check_kfp(address).found == f"{remote.url}, namespace team"
        remote.tokens = {"other"}
        check = check_kfp(address)
        assert check.state == State.FAIL and "--token-file" in check.mend


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<html>"), (200, b"[]"), (200, b"{}"), (200, b"5"), (404, b""), (500, b"")]
)
def test_what_is_not_pipelines_fails(served: Callable[[int, bytes], str], status: int, body: bytes) -> None:
    check = check_kfp(Address(served(status, body)))
    assert check.state == State.FAIL
    assert "--host" in check.mend


@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "localhost:8888", "http://", "http://[", "ftp://there"])
def test_an_address_that_leads_nowhere_fails(host: str) -> None:
    check = check_kfp(Address(host))
    assert check.state == State.FAIL
    assert host in check.found


def doctor(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"KUBECONFIG": str(kubeconfig)}
    env.pop("KUBERNETES_SERVICE_HOST", None)
    return subprocess.run([KFP_FINETUNE, "doctor", *arguments], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["table", "json"])
def test_a_cluster_that_does_not_answer_is_one_message_and_status_2(tmp_path: Path, arguments: tuple[str]) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    written = {
        "clusters": [{"name": "it", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "it", "user": {"token": "hidden"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }
    kubeconfig.write_text(yaml.safe_dump(written))
    ended = doctor(kubeconfig, *arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: 1 problem")
    assert "127.0.0.1:1, which does not answer" in ended.stderr
    assert "Traceback" not in ended.stderr and "hidden" not in ended.stderr


def test_without_a_configuration_it_is_said_where_one_is_looked_for(tmp_path: Path) -> None:
    ended = doctor(tmp_path / "absent")
    assert ended.returncode == 2
    assert str(tmp_path / "absent") in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({}, "nodes with them: 1)"),
        ({"nvidia.com/gpu.product": "NVIDIA-L4"}, "; NVIDIA-L4, 22.5 GiB each"),
        ({"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "11264"}, "; NVIDIA-L4, 11.0 GiB each"),
        ({"nvidia.com/gpu.product": "Another"}, "; Another"),
    ],
)
def test_gpus_are_told_with_what_their_nodes_are_labelled(labels: dict[str, str], said: str) -> None:
    gpus = {
        "metadata": {"name": "one", "labels": labels},
        "spec": {},
        "status": {"allocatable": {"nvidia.com/gpu": "4"}},
    }
    others = {"metadata": {"name": "other", "labels": {"nvidia.com/gpu.product": "None"}}, "spec": {}, "status": {}}
    with serving(lambda request: say({"items": [gpus, others]})) as (_, api):
        check = check_gpus(Cluster(api, "team"), None)
    assert check.state == State.PASS
    assert check.found.startswith("4 in all") and check.found.endswith(said)
