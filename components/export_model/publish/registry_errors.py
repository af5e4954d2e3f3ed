"""What went wrong with a Model Registry, as a person needs it."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from kfp_finetune.components.export_model.publish.targets import WHAT, RegistryTarget
from kfp_finetune.errors import UserError, refuse
from kfp_finetune.sources.retries import SERVER_STATUSES, Transient, distrust, plain

TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
"""Of the file with the token; the registry's client and that of Kubeflow Pipelines read it too."""

TOKEN = re.compile(r"[!-~]+")
ADDRESS = "Check the address: of Kubeflow's own it is model-registry-service.kubeflow.svc.cluster.local:8080."
RIGHTS = "Let its administrator allow the service account of the steps (see manifests/README.md)."


def token_of(target: RegistryTarget) -> str:
    """The token that registers: that of the pod's service account; none over plain HTTP, which would show it.

    Args:
        target: Where.

    Raises:
        UserError: If there is none.
    """
    if not target.is_secure:
        return ""
    from kfp_finetune.cluster.client import SERVICE_ACCOUNT

    named = os.environ.get(TOKEN_VARIABLE)
    if not named and not _is_of_cluster(urlsplit(target.server).hostname or ""):
        given = f"{target.address}, to which the service account's own token is not shown: it is the cluster's key"
        mend = f"Name a file with a token for it in {TOKEN_VARIABLE}, or write the address within the cluster."
        raise refuse(WHAT, given, "a token that is meant for it, or a server of this cluster", mend)
    path = Path(named or SERVICE_ACCOUNT / "token")
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not TOKEN.fullmatch(token):
        given = f"{target.address} without a token: {path} is no file with one"
        mend = f"Name a file with a token in {TOKEN_VARIABLE}, or let Kubernetes mount the service account's."
        raise refuse(WHAT, given, "a token of a service account, for an address with https", mend)
    return token


def _is_of_cluster(host: str) -> bool:
    """Whether a name is one of a service of this cluster."""
    return host.endswith((".svc", ".svc.cluster.local")) or host in ("localhost", "127.0.0.1")


def explain(target: RegistryTarget, error: Exception) -> Exception:
    """The error to raise instead of one of `model_registry` or of its HTTP client.

    Args:
        target: Where is to be registered.
        error: What was raised.

    Returns:
        `Transient` where another attempt is worth it, `UserError` where a person must act, or the error itself.
    """
    import aiohttp
    from mr_openapi.exceptions import ApiException

    if isinstance(error, ApiException):
        return _explain_answer(target, error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return distrust(WHAT, target.address, error)
    if isinstance(error, aiohttp.ClientSSLError):
        given = f"{target.address}, where TLS is not spoken: {plain(error)}"
        return refuse(WHAT, given, "a server with https", "Write registry+http:// for a server without TLS.")
    if isinstance(error, aiohttp.TooManyRedirects):
        given = f"{target.address}, which sends the request in circles"
        return refuse(WHAT, given, "a Model Registry", f"{ADDRESS} Look at the proxy too.")
    if isinstance(error, TimeoutError):
        return Transient("it does not answer in time")
    if isinstance(error, aiohttp.ClientError | OSError):
        return Transient(plain(error))
    if isinstance(error, ValueError | TypeError | KeyError | AttributeError | AssertionError):
        return _no_registry(target, f"{type(error).__name__} {plain(error)}")
    return error


def _no_registry(target: RegistryTarget, why: str) -> UserError:
    given = f"{target.address}, where the answer is none of a Model Registry: {why}"
    return refuse(WHAT, given, "the address of a Kubeflow Model Registry's REST API", f"{ADDRESS} Look at proxies too.")


def _explain_answer(target: RegistryTarget, error: Exception) -> Exception:
    status = int(getattr(error, "status", 0) or 0)
    said = getattr(getattr(error, "data", None), "message", "") or getattr(error, "body", "") or ""
    message = plain(Exception(said)) if said else f"status {status}"
    token = "the service account's token" if target.is_secure else "no token, since tokens go over https alone"
    if status == 409:
        return Transient("somebody else registered it meanwhile")
    if status in SERVER_STATUSES:
        return Transient(f"the server answered {status}: {message}")
    if status == 401:
        given = f"{target.address}, which wants to know who asks and got {token}: {message}"
        mend = f"Name a file with a valid token in {TOKEN_VARIABLE}. {RIGHTS}"
        return refuse(WHAT, given, "a registry that knows the service account, over https", mend)
    if status == 403:
        given = f"{target.address}, which may not be used with {token}: {message}"
        return refuse(WHAT, given, "a registry that the steps' service account may read and write", RIGHTS)
    if status == 404:
        return _no_registry(target, message)
    given = f"{target.address}, which refuses what it is told ({status}): {message}"
    return refuse(WHAT, given, "a Kubeflow Model Registry that takes it", "See the registry's log.")
