"""The connection to Kubernetes: its client, the namespace at hand, and clear words for calls that it refuses."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import urllib3
import yaml
from kubernetes import client, config
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from kfp_finetune.errors import Problem, UserError, refuse

Call = TypeVar("Call", bound=Callable[..., Any])

REQUEST_TIMEOUT = (10, 60)
"""Seconds to connect and to read that bound every call which names no bound of its own."""

PATIENCE_SECONDS = 600
"""Longest time for which a call that must not be lost is made again and again."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts a pod's own token and namespace."""

_RBAC_REFUSAL = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)"')


@dataclass(frozen=True)
class Cluster:
    """A cluster to talk to.

    Args:
        api: Client with credentials, bounded calls and a few retries.
        namespace: Namespace of this pod, or of the kubeconfig's current context.

    """

    api: client.ApiClient
    namespace: str


class UnreachableError(UserError):
    """A call that the API server did not answer, or not now: another attempt may be answered."""


class ForbiddenError(UserError):
    """A call to which the account has no right; the mend is the command that grants it."""


class NotAdmittedError(UserError):
    """A call that a quota or a policy of the cluster forbids."""


class BoundedClient(client.ApiClient):
    """A client whose every call ends: `REQUEST_TIMEOUT` holds where the caller names no timeout."""

    def request(self, *args: Any, _request_timeout: object = None, **kwargs: Any) -> Any:
        """Make one HTTP request; see `kubernetes.client.ApiClient.request`."""
        return super().request(*args, _request_timeout=_request_timeout or REQUEST_TIMEOUT, **kwargs)


def connect(retries: int = 5) -> Cluster:
    """Connect to the cluster that this pod runs in, or else to that of KUBECONFIG or `~/.kube/config`.

    No call is made yet, and the client's global default configuration stays untouched.

    Args:
        retries: Further attempts of a call while the API server does not answer.

    Raises:
        UserError: If there is no usable configuration.

    """
    settings = client.Configuration()
    namespace = _load_pod(settings) if _in_pod() else _load_kubeconfig(settings)
    settings.retries = urllib3.Retry(
        total=retries, backoff_factor=0.5, backoff_jitter=0.5, status_forcelist=(502, 503, 504), raise_on_status=False
    )
    return Cluster(BoundedClient(settings), namespace)


def _in_pod() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").is_file()


def _load_pod(settings: client.Configuration) -> str:
    try:
        config.load_incluster_config(settings)
    except config.ConfigException as error:
        raise refuse(
            "the pod's service account",
            f"an incomplete one ({error})",
            f"token and ca.crt in {SERVICE_ACCOUNT}",
            "Let Kubernetes mount the service account's token (automountServiceAccountToken) into the step's pod.",
        ) from error
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text().strip() or "default"
    except FileNotFoundError:
        return "default"


def _load_kubeconfig(settings: client.Configuration) -> str:
    path = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    try:
        config.load_kube_config(path, client_configuration=settings, persist_config=False)
        _, context = config.list_kube_config_contexts(path)
    except (config.ConfigException, yaml.YAMLError, OSError) as error:
        raise refuse(
            "the Kubernetes configuration",
            f"{path}, which cannot be used ({str(error).strip()})",
            "a kubeconfig file with a current context, or a pod with a service account",
            "Set KUBECONFIG to a file with which kubectl works, or run this step in the cluster.",
        ) from error
    return context["context"].get("namespace") or "default"


def acting_as(cluster: Cluster, user: str) -> Cluster:
    """Return the same cluster for calls that are made as another account, as with `kubectl --as`.

    Args:
        cluster: The cluster.
        user: The account, such as "system:serviceaccount:kubeflow:pipeline-runner".

    """
    return Cluster(
        BoundedClient(cluster.api.configuration, header_name="Impersonate-User", header_value=user), cluster.namespace
    )


@contextmanager
def api_call(verb: str, resource: str, namespace: str = "") -> Iterator[None]:
    """Turn what Kubernetes refuses for reasons that a user can mend into a `UserError`.

    Args:
        verb: The RBAC verb of the call in the body, such as "create".
        resource: The resource's plural, with its API group where it has one, such as "trainjobs.trainer.kubeflow.org".
        namespace: The namespace of the call; "" for a resource of the whole cluster.

    Raises:
        ForbiddenError: If the account has no right to the call.
        NotAdmittedError: If a quota or a policy forbids the call.
        UnreachableError: If the API server cannot be reached, or cannot answer now (429, 5xx).
        UserError: If it is not authenticated, or if its namespace does not exist.
        kubernetes.client.ApiException: For every other answer, unchanged.

    """
    try:
        yield
    except client.ApiException as error:
        if refusal := _RBAC_REFUSAL.search(status_message(error)):
            if refusal["verb"] == "impersonate":
                verb, resource, namespace = "impersonate", refusal["resource"], ""
            raise ForbiddenError([missing_right(refusal["user"], verb, resource, namespace)]) from error
        if error.status in (0, 429) or error.status >= 500:
            raise UnreachableError([_unreachable(error)]) from error
        problem = _problem_of(error, resource, namespace)
        if problem is None:
            raise
        raise (NotAdmittedError if error.status == 403 else UserError)([problem]) from error
    except urllib3.exceptions.HTTPError as error:
        raise UnreachableError([_unreachable(error)]) from error


def patiently(call: Call) -> Call:
    """Let a call be made again, for `PATIENCE_SECONDS`, while the API server does not answer it.

    Args:
        call: A function whose API calls stand in `api_call`.

    """
    patient = retry(
        retry=retry_if_exception_type(UnreachableError),
        stop=stop_after_delay(PATIENCE_SECONDS),
        wait=wait_random_exponential(1, max=15),
        reraise=True,
        before_sleep=lambda state: print(f"waiting for the API server: attempt {state.attempt_number + 1}", flush=True),
    )
    return cast(Call, patient(call))


def status_message(error: client.ApiException) -> str:
    """Return what the API server said in a refusal, without headers and JSON."""
    return str(_status_of(error).get("message") or error.reason or error.status)


def _status_of(error: client.ApiException) -> dict[str, Any]:
    try:
        status = json.loads(error.body)
    except (TypeError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def _problem_of(error: client.ApiException, resource: str, namespace: str) -> Problem | None:
    message = status_message(error)
    if error.status == 401:
        return Problem(
            "the Kubernetes credentials",
            f"ones that the API server rejects ({message})",
            "a valid token or certificate",
            "Renew them (an expired token, or the kubeconfig of another cluster, is the usual reason).",
        )
    if error.status == 403:
        return _not_admitted(message, resource)
    if error.status == 404 and (_status_of(error).get("details") or {}).get("kind") == "namespaces":
        return Problem(
            "namespace",
            namespace,
            "one that exists in the cluster",
            f"Create it (kubectl create namespace {namespace}), or choose another one.",
        )
    return None


def missing_right(user: str, verb: str, resource: str, namespace: str) -> Problem:
    """Say that an account lacks a right, and with which commands an administrator grants it.

    Args:
        user: Name of the account as Kubernetes knows it, such as "system:serviceaccount:kubeflow:pipeline-runner".
        verb: The RBAC verb.
        resource: The resource's plural, with its API group and its subresource where it has them.
        namespace: Where the right is missing; "" for the whole cluster.

    """
    where = f"in namespace {namespace}" if namespace else "in the whole cluster"
    kind, scope = ("role", f"-n {namespace} ") if namespace else ("clusterrole", "")
    role = f"kfp-finetune-{verb}-{resource.replace('/', '-')}"
    account = user.removeprefix("system:serviceaccount:")
    subject = f"--user={user}" if account == user else f"--serviceaccount={account}"
    return Problem(
        f"the right to {verb} {resource} {where}",
        f"an account without it, {user}",
        f"one whose RBAC roles hold verb {verb} on {resource} {where}",
        "Let an administrator run: "
        f"kubectl {scope}create {kind} {role} --verb={verb} --resource={resource} && "
        f"kubectl {scope}create {kind}binding {role} --{kind}={role} {subject}",
    )


def _not_admitted(message: str, resource: str) -> Problem:
    return Problem(
        resource,
        f"a request that the cluster does not admit ({message})",
        "what the namespace's quotas, limits and policies let through",
        "Ask for less, free what is no longer used, or let an administrator raise the limit.",
    )


def _unreachable(error: Exception) -> Problem:
    pool = getattr(error, "pool", None)
    server = f"{pool.host}:{pool.port}" if pool is not None and hasattr(pool, "host") else "the configured address"
    reason = getattr(error, "reason", None) or error
    return Problem(
        "the Kubernetes API server",
        f"{server}, which does not answer ({str(reason).strip()})",
        "one that answers from here",
        "See whether the cluster runs and, outside of it, the address in KUBECONFIG and the network (VPN, proxy); then "
        "start again.",
    )
