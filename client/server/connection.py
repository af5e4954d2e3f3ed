"""The connection to Kubeflow Pipelines: where it is, as whom, and calls that all end."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import kfp_server_api
from kfp import client as kfp_client

from kfp_finetune.client.server.calls import ask
from kfp_finetune.cluster.client import SERVICE_ACCOUNT
from kfp_finetune.cluster.client import connect as connect_to_cluster
from kfp_finetune.errors import Problem, UserError, refuse

REQUEST_TIMEOUT = (10, 60)
"""Seconds to connect and to read that bound every call."""

PAGE_START = 200
"""Characters in which a page tells that it is one."""

CONNECT_SECONDS = 3.0
"""For how long a server that does not answer is asked again at first."""

HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
TOKEN_FILE_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
"""Variables that kfp.Client reads too; Kubeflow's notebooks set the second."""

CA_VARIABLE = "SSL_CERT_FILE"


@dataclass(frozen=True)
class Address:
    """Where Kubeflow Pipelines is, and as whom it is asked; whatever is empty is found as kfp.Client finds it.

    Args:
        host: Address of the UI or of the API, such as "https://kubeflow.example.com/pipeline"; empty for the one in
            KF_PIPELINES_ENDPOINT, or else that of this pod's cluster or of the kubeconfig.
        namespace: Namespace of the runs, where there are several users; empty for this pod's own, if in one.
        token_file: File with a bearer token, read anew at each call, so that it may be renewed; empty for the one in
            KF_PIPELINES_SA_TOKEN_PATH.
        ca_file: Certificate of the authority that signed the server's, in PEM format; empty for those of the system.
    """

    host: str = ""
    namespace: str = ""
    token_file: str = ""
    ca_file: str = ""


@dataclass(frozen=True)
class Server:
    """Kubeflow Pipelines, ready to be asked.

    Args:
        api: Client with credentials and bounded calls.
        host: Address of its pages.
        namespace: Namespace of the runs; empty where there is one user only.
    """

    api: kfp_server_api.ApiClient
    host: str
    namespace: str

    @property
    def pipelines(self) -> kfp_server_api.PipelineServiceApi:
        """Calls about pipelines and their versions."""
        return kfp_server_api.PipelineServiceApi(self.api)

    @property
    def uploads(self) -> kfp_server_api.PipelineUploadServiceApi:
        """Calls that bring a compiled pipeline."""
        return kfp_server_api.PipelineUploadServiceApi(self.api)

    @property
    def experiments(self) -> kfp_server_api.ExperimentServiceApi:
        """Calls about experiments."""
        return kfp_server_api.ExperimentServiceApi(self.api)

    @property
    def runs(self) -> kfp_server_api.RunServiceApi:
        """Calls about runs."""
        return kfp_server_api.RunServiceApi(self.api)

    @property
    def recurring_runs(self) -> kfp_server_api.RecurringRunServiceApi:
        """Calls about recurring runs."""
        return kfp_server_api.RecurringRunServiceApi(self.api)

    def page(self, path: str) -> str:
        """Address of a page of the UI.

        Args:
            path: After the "#", such as "/runs/details/RUN".
        """
        return f"{self.host}/#{path}"


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


def _with_body(error: kfp_server_api.ApiException) -> kfp_server_api.ApiException:
    """An error with a body: the client decodes it, and does not expect None."""
    error.body = error.body or b""
    return error


class _Client(kfp_client.Client):
    """kfp.Client, whose constructor would ask the server for a minute and more, without a bound."""

    def get_kfp_healthz(self, sleep_duration: int = 5) -> kfp_server_api.V2beta1GetHealthzResponse:
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)


def get_bytes(api: kfp_server_api.ApiClient, path: str, query: Mapping[str, str]) -> bytes:
    """The answer to a request for which kfp_server_api has no method: logs and artifacts are not in its description.

    Args:
        api: Of the server.
        path: After the host.
        query: Of the request.

    Raises:
        kfp_server_api.ApiException: If the server refuses it.
    """
    answer = api.call_api(
        path,
        "GET",
        query_params=list(query.items()),
        auth_settings=["Bearer"],
        _preload_content=False,
        _return_http_data_only=True,
    )
    return bytes(answer.data)


def get_text(api: kfp_server_api.ApiClient, path: str, query: Mapping[str, str]) -> str:
    """The answer to such a request as text; see `get_bytes`.

    Raises:
        kfp_server_api.ApiException: If the server refuses it, or shows a page instead.
    """
    text = get_bytes(api, path, query).decode(errors="replace")
    if text[:PAGE_START].lstrip().lower().startswith(("<!doctype html", "<html")):
        raise _with_body(kfp_server_api.ApiException(401, "a page came instead of an answer"))
    return text


def connect(address: Address | None = None, client: kfp_client.Client | None = None) -> Server:
    """Connects to Kubeflow Pipelines and sees whether it answers.

    Args:
        address: Where it is; None for what kfp.Client finds.
        client: A client with credentials of its own, which are used instead of those of the address.

    Raises:
        UserError: If the address cannot be right, nothing answers there, or the credentials are refused.
    """
    address = address or Address()
    client = client or _client(address)
    source = client._run_api.api_client  # what kfp.Client found out about host, certificates and credentials
    api = BoundedApi(source.configuration, cookie=source.cookie)
    api.default_headers |= source.default_headers
    health = _health(api)
    namespace = address.namespace or client.get_user_namespace() or _own_namespace()
    if health.multi_user and not namespace:
        raise refuse(
            "namespace",
            "none, to a server of several users",
            "the namespace of your Kubeflow profile",
            "Name it with --namespace; the dashboard shows it at the top.",
        )
    namespace = namespace if health.multi_user else ""
    return Server(api, source.configuration.host.rstrip("/"), namespace)


def _health(api: BoundedApi) -> kfp_server_api.V2beta1GetHealthzResponse:
    call = kfp_server_api.HealthzServiceApi(api).healthz_service_get_healthz
    try:
        health = ask("see whether it answers", call, patience=CONNECT_SECONDS)
        if health.multi_user is not None:
            return health
    except (ValueError, TypeError, AttributeError):
        pass  # an answer that is none of this API
    raise refuse(
        "--host",
        f"{api.configuration.host}, which does not answer as Kubeflow Pipelines 2 does",
        "the address of its UI or of its API",
        "Check --host; with kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80 it is http://localhost:8080.",
    )


def _client(address: Address) -> kfp_client.Client:
    host = address.host or os.environ.get(HOST_VARIABLE, "")
    token_file = address.token_file or os.environ.get(TOKEN_FILE_VARIABLE, "")
    ca_file = address.ca_file or os.environ.get(CA_VARIABLE, "")
    problems = []
    if host and not host.startswith(("http://", "https://")):
        problems.append(Problem("--host", repr(host), "an address that begins with http:// or https://", "Correct it."))
    if not host and not _in_reach_of_kubernetes():
        mend = f"Name it with --host or {HOST_VARIABLE}, or set KUBECONFIG to a cluster that runs it."
        problems.append(Problem("--host", "nothing", "the address of Kubeflow Pipelines", mend))
    for option, path in ("--token-file", token_file), ("--ca-file", ca_file):
        if path and not os.access(path, os.R_OK):
            problems.append(Problem(option, path, "a file that can be read", "Check the path and its rights."))
    if problems:
        raise UserError(problems)
    credentials = kfp_client.set_volume_credentials.ServiceAccountTokenVolumeCredentials(token_file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that it needs a server of version 2
        return _Client(host=host or None, credentials=credentials if token_file else None, ssl_ca_cert=ca_file or None)


def _own_namespace() -> str:
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text().strip()
    except OSError:
        return ""


def _in_reach_of_kubernetes() -> bool:
    try:
        connect_to_cluster()
    except UserError:
        return False
    return True
