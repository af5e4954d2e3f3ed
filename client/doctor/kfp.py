"""Whether Kubeflow Pipelines answers."""

import urllib3

from kfp_finetune.client.doctor.report import Check, State

NAME = "Kubeflow Pipelines"

_TIMEOUT = urllib3.Timeout(connect=10, read=20)
_LOGIN = {301, 302, 303, 307, 401, 403}
_MEND = "Check --kfp-host; with kubectl -n kubeflow port-forward svc/ml-pipeline 8888 it is http://localhost:8888."


def check_kfp(host: str) -> Check:
    """Checks whether the API of Kubeflow Pipelines answers at an address.

    Args:
        host: The address, such as "http://localhost:8888".
    """
    if not host.startswith(("http://", "https://")):
        return Check(NAME, State.FAIL, f"{host!r} is no address that begins with http:// or https://", _MEND)
    try:
        answer = urllib3.request(
            "GET",
            f"{host.rstrip('/')}/apis/v2beta1/healthz",
            timeout=_TIMEOUT,
            retries=urllib3.Retry(1),
            redirect=False,
        )
        health = answer.json() if answer.status == 200 else None
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Check(NAME, State.FAIL, f"{host} does not answer as it should ({reason})", _MEND)
    if answer.status in _LOGIN:
        mend = f"The client needs credentials there. {_MEND}"
        return Check(NAME, State.WARN, f"{host} asks for a login (status {answer.status})", mend)
    if not isinstance(health, dict):
        return Check(NAME, State.FAIL, f"{host} answers with status {answer.status}", _MEND)
    return Check(NAME, State.PASS, f"{host}, version {health.get('tag_name') or 'unknown'}")
