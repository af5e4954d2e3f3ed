"""The connection: addresses, tokens, namespaces, certificates, and who does not answer."""

import contextlib
import socket
from pathlib import Path

import pytest
from servers import kfp
from servers.certificates import write_certificate
from servers.kfp import faults

from kfp_finetune.client.server import api
from kfp_finetune.client.server.calls import AwayError
from kfp_finetune.client.server.connection import Address, connect, ui_of
from kfp_finetune.client.server.runs import get_run
from kfp_finetune.client.server.schedules import list_schedules
from kfp_finetune.errors import UserError


def test_an_address_is_all_that_a_server_without_login_needs(remote: kfp.Server) -> None:
    server = connect(Address(host=remote.url + "/"))
    assert server.page("/runs/details/a") == f"{remote.url}/#/runs/details/a"
    assert list_schedules(server) == []


def test_the_address_may_stand_in_the_variable_that_kfp_reads(
    remote: kfp.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", remote.url)
    assert connect().host == remote.url


def test_everything_that_is_wrong_is_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        connect(Address("kubeflow", token_file=f"{tmp_path}/token", ca_file=f"{tmp_path}/ca"))
    assert [problem.what for problem in caught.value.problems] == ["--host", "--ca-file", "--token-file"]
    with pytest.raises(UserError, match="--host: given nothing"):
        connect()


def test_where_nothing_answers_it_is_said_with_a_way_out() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(AwayError, match="port-forward"):
        connect(Address(host=f"http://127.0.0.1:{port}"))


def test_a_token_is_read_anew_at_each_call(remote: kfp.Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    remote.tokens = {"first"}
    server = connect(Address(host=remote.url, token_file=str(token)))
    remote.tokens = {"second"}
    with pytest.raises(UserError, match=r"credentials: given none that the server accepts(.|\n)*--token-file"):
        list_schedules(server)
    token.write_text("second")
    assert list_schedules(server) == []


@pytest.mark.parametrize("gate", ["kfp", "istio", "dex"])
def test_a_login_is_asked_for_whoever_refuses(gate: str) -> None:
    with kfp.serve(multi_user=True, tokens={"good"}) as remote:
        remote.gate = gate
        with pytest.raises(UserError, match="credentials: given none that the server accepts"):
            list_schedules(connect(Address(host=remote.url, namespace="team")))


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo", b"\xff\xfe", None])
def test_a_file_without_one_token_is_refused_as_such(remote: kfp.Server, tmp_path: Path, content: bytes | None) -> None:
    token = tmp_path / "token"
    if content is None:
        token.mkdir()
    else:
        token.write_bytes(content)
    with pytest.raises(UserError, match=f"--token-file: given {token}, which"):
        connect(Address(host=remote.url, token_file=str(token)))


def test_a_server_that_stalls_is_given_up(remote: kfp.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server = connect(Address(host=remote.url))
    monkeypatch.setattr(api, "REQUEST_TIMEOUT", (1, 0.2))
    stall = faults.Stall()
    remote.fail("GET", "/recurringruns", stall, times=1)
    assert list_schedules(server) == []  # asked again
    assert stall.begun.is_set()
    stall.over.set()


@pytest.mark.parametrize(
    ("host", "ui"),
    [
        ("http://localhost:8080", "http://localhost:8080"),
        ("ml-pipeline.kubeflow.svc.cluster.local:8888", "http://ml-pipeline-ui.kubeflow.svc.cluster.local"),
        (
            "https://k8s:6443/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy",
            "https://k8s:6443/api/v1/namespaces/kubeflow/services/ml-pipeline-ui:80/proxy",
        ),
    ],
)
def test_the_ui_of_an_api_that_kfp_finds_is_beside_it(host: str, ui: str) -> None:
    assert ui_of(host) == ui


def test_a_token_is_never_in_a_message(remote: kfp.Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("very-secret")
    remote.tokens = {"other"}
    with pytest.raises(UserError) as caught:
        connect(Address(host=remote.url, token_file=str(tmp_path / "token")))
    assert "very-secret" not in str(caught.value)


def test_of_several_users_one_names_a_namespace_of_theirs() -> None:
    with kfp.serve(multi_user=True) as remote:
        remote.namespaces = {"team"}
        with pytest.raises(UserError, match="namespace: given none, to a server of several users"):
            connect(Address(host=remote.url))
        assert list_schedules(connect(Address(host=remote.url, namespace="team"))) == []
        with pytest.raises(UserError, match="rights: given an account that may not list the schedules"):
            list_schedules(connect(Address(host=remote.url, namespace="others")))


def test_a_certificate_of_ones_own_authority(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    with kfp.serve(tls=(certificate, key)) as remote:
        assert connect(Address(host=remote.url, ca_file=str(certificate))).host == remote.url
        with pytest.raises(UserError, match=r"the server's certificate: given one that is not trusted(.|\n)*--ca-file"):
            connect(Address(host=remote.url))


@pytest.mark.parametrize(
    "fault", [faults.drop, faults.cut, faults.status(500), faults.status(429, retry_after=1), faults.page(502)]
)
def test_a_question_is_asked_again(remote: kfp.Server, fault: faults.Fault) -> None:
    server = connect(Address(host=remote.url))
    remote.fail("GET", "/recurringruns", fault, times=2)
    assert list_schedules(server) == []


def test_an_unknown_run_is_told_at_once(remote: kfp.Server) -> None:
    with pytest.raises(UserError, match="read the run: given something that is not there"):
        get_run(connect(Address(host=remote.url)), "00000000-0000-0000-0000-000000000000")
