"""The connection to Kubeflow Pipelines: where it is, as whom, and calls that all end."""

import os
import re
import warnings
from dataclasses import dataclass

import kfp_server_api
from kfp import client as kfp_client

from kfp_finetune.client.server.api import BoundedApi
from kfp_finetune.client.server.calls import LoginError, ask
from kfp_finetune.client.server.credentials import TokenFile
from kfp_finetune.cluster.client import SERVICE_ACCOUNT
from kfp_finetune.cluster.client import connect as connect_to_cluster
from kfp_finetune.errors import Problem, UserError, refuse

CONNECT_SECONDS = 3.0
"""For how long a server that does not answer is asked again at first."""

HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
UI_HOST_VARIABLE = "KF_PIPELINES_UI_ENDPOINT"
TOKEN_FILE_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
"""Variables that kfp.Client reads too; Kubeflow's notebooks set the last."""

IN_CLUSTER = re.compile(r"(https?://)?ml-pipeline\.(?P<namespace>[^.]+)\.svc\.cluster\.local:8888")

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
        ui_host: Address of the UI, if host is the API's; empty for the one in KF_PIPELINES_UI_ENDPOINT, or the one that
            belongs to the host.
    """

    host: str = ""
    namespace: str = ""
    token_file: str = ""
    ca_file: str = ""
    ui_host: str = ""


@dataclass(frozen=True)
class Server:
    """Kubeflow Pipelines, ready to be asked.

    Args:
        api: Client with credentials and bounded calls.
        host: Address of the API.
        ui_host: Address of the UI, which has pages and artifacts.
        namespace: Namespace of the runs; empty where there is one user only.
    """

    api: kfp_server_api.ApiClient
    host: str
    ui_host: str
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
        return f"{self.ui_host}/#{path}"


class _Client(kfp_client.Client):
    """kfp.Client, whose constructor would ask the server for a minute and more, without a bound."""

    def get_kfp_healthz(self, sleep_duration: int = 5) -> kfp_server_api.V2beta1GetHealthzResponse:
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)


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
    host = source.configuration.host.rstrip("/")
    ui_host = address.ui_host or os.environ.get(UI_HOST_VARIABLE, "") or ui_of(host)
    return Server(api, host, ui_host.rstrip("/"), namespace if health.multi_user else "")


def ui_of(host: str) -> str:
    """The UI's address beside an API's that kfp.Client found by itself; any other address is taken for the UI's.

    Args:
        host: Address of the API.
    """
    in_cluster = IN_CLUSTER.fullmatch(host)
    if in_cluster:
        return f"http://ml-pipeline-ui.{in_cluster['namespace']}.svc.cluster.local"
    return host.replace("/services/ml-pipeline:http/proxy", "/services/ml-pipeline-ui:80/proxy")


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
    if ca_file and not (os.path.isfile(ca_file) and os.access(ca_file, os.R_OK)):
        problems.append(Problem("--ca-file", ca_file, "a file that can be read", "Check the path and its rights."))
    credentials = TokenFile(token_file) if token_file else None
    try:
        if credentials:
            credentials.read()
    except LoginError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that it needs a server of version 2
        return _Client(host=host or None, credentials=credentials, ssl_ca_cert=ca_file or None)


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
