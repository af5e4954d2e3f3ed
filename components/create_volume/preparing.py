"""Make a volume writable for the steps' group, with a short pod that mounts it."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes import client

from kfp_finetune.cluster.client import NotAdmittedError, api_call
from kfp_finetune.cluster.ownership import MANAGED_BY
from kfp_finetune.cluster.pods import NO_SIDECAR, RESTRICTED, Pod, container_status, why_not_running
from kfp_finetune.components.create_volume.binding import events_of
from kfp_finetune.errors import UserError, refuse
from kfp_finetune.workspace import MOUNT_PATH

_CLAIMS = "persistentvolumeclaims"
_CONTAINER = "prepare"
_MODULE = "kfp_finetune.components.create_volume.sharing"
_POLL_SECONDS = 0.5
_MARGIN_SECONDS = 60

_AS_ROOT = {
    **RESTRICTED,
    "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "FOWNER"]},
    "runAsNonRoot": False,
    "runAsUser": 0,
    "runAsGroup": 0,
}
"""Of the second pod: root that may change a directory's group and mode, and nothing else."""

_ALLOWED = "a volume whose root group 0 may write to"

_MEND = (
    "Let an administrator run once on the volume's root, in a pod as root or where its files are: "
    "chgrp 0 ROOT && chmod g+rwxs ROOT. Or take a storage class that makes volumes which all may write to. If the "
    "steps can write to it as it is, set prepare to false."
)


@dataclass(frozen=True)
class _End:
    """How a pod ended.

    Args:
        status: Exit status of its container.
        message: What it said last.
    """

    status: int
    message: str


def prepare_volume(api: client.ApiClient, namespace: str, name: str, image: str, wait_seconds: int) -> None:
    """Make a volume's root writable for group 0, which the images run in; one that is stays as it is.

    A pod without any privilege mounts the volume with `fsGroup: 0`: most CSI drivers then make it group-writable. Where
    that is not enough (hostPath, NFS), a second pod runs as root, with the capabilities CHOWN and FOWNER alone. Either
    pod is deleted when it has ended, failed or waited too long; if this process is killed meanwhile, it ends by itself
    a minute after `wait_seconds`, and is deleted together with the claim.

    Args:
        api: The cluster's client.
        namespace: Namespace of the claim.
        name: Name of the claim.
        image: Image of the pods: one of this library's.
        wait_seconds: Longest wait for both pods, in seconds.

    Raises:
        UserError: If there is no such claim, if the volume cannot be made writable, if a pod does not run in time, or
            if the cluster refuses a call.

    """
    core = client.CoreV1Api(api)
    with api_call("get", _CLAIMS, namespace):
        try:
            claim = core.read_namespaced_persistent_volume_claim(name, namespace)
        except client.ApiException as error:
            if error.status != 404:
                raise
            raise refuse(
                f"volume {name}",
                f"none of that name in namespace {namespace}",
                "one that is there, to be prepared",
                "Set create to true, or correct the name.",
            ) from error
    deadline = time.monotonic() + wait_seconds
    end = _run(core, claim, _pod(claim, image, RESTRICTED, wait_seconds), deadline)
    if end.status != 0:
        print(f"volume {name}: not writable yet ({end.message}); a pod mends that as root", flush=True)
        end = _run_as_root(core, claim, _pod(claim, image, _AS_ROOT, wait_seconds), deadline, end.message)
    if end.status != 0:
        raise refuse(f"volume {name}", f"one that root cannot make writable either ({end.message})", _ALLOWED, _MEND)
    print(f"volume {name}: writable for group 0", flush=True)


def _run_as_root(core: client.CoreV1Api, claim: Any, body: Pod, deadline: float, found: str) -> _End:
    """Run a pod as root; where the namespace's policy forbids it, say what else there is to do."""
    try:
        return _run(core, claim, body, deadline)
    except NotAdmittedError as error:
        refusal = f"one that group 0 cannot write to ({found}), where a pod as root is {error.problems[0].given}"
        raise refuse(f"volume {claim.metadata.name}", refusal, _ALLOWED, _MEND) from error


def _pod(claim: Any, image: str, security: Mapping[str, Any], seconds: int) -> dict[str, Any]:
    name = claim.metadata.name
    owner = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name, "uid": claim.metadata.uid}
    container = {
        "name": _CONTAINER,
        "image": image,
        "command": ["python", "-m", _MODULE, MOUNT_PATH],
        "volumeMounts": [{"name": "workspace", "mountPath": MOUNT_PATH}],
        "securityContext": security,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
    }
    return {
        "metadata": {
            "generateName": f"{name}-prepare-",
            "labels": {**MANAGED_BY, **NO_SIDECAR},
            "annotations": NO_SIDECAR,
            "ownerReferences": [owner],
        },
        "spec": {
            "activeDeadlineSeconds": seconds + _MARGIN_SECONDS,
            "automountServiceAccountToken": False,
            "containers": [container],
            "restartPolicy": "Never",
            "securityContext": {"fsGroup": 0},
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "workspace", "persistentVolumeClaim": {"claimName": name}}],
        },
    }


def _run(core: client.CoreV1Api, claim: Any, body: Pod, deadline: float) -> _End:
    """Run a pod to its end and delete it, however it ends."""
    namespace = claim.metadata.namespace
    with api_call("create", "pods", namespace):
        name = core.create_namespaced_pod(namespace, body).metadata.name
    try:
        while True:
            pod = _read(core, namespace, name)
            if end := _end(pod):
                return end
            if time.monotonic() > deadline or pod["status"].get("phase") == "Failed":
                raise _did_not_run(core, claim, pod)
            time.sleep(_POLL_SECONDS)
    finally:
        with api_call("delete", "pods", namespace):
            _delete(core, namespace, name)


def _read(core: client.CoreV1Api, namespace: str, name: str) -> Pod:
    with api_call("get", "pods", namespace):
        try:
            return json.loads(core.read_namespaced_pod(name, namespace, _preload_content=False).data)
        except client.ApiException as error:
            if error.status != 404:
                raise
            raise refuse(
                f"pod {name} in namespace {namespace}",
                "one that was deleted before it had ended",
                "one that is left alone until it has prepared the volume",
                "Start again.",
            ) from error


def _delete(core: client.CoreV1Api, namespace: str, name: str) -> None:
    try:
        core.delete_namespaced_pod(name, namespace)
    except client.ApiException as error:
        if error.status != 404:
            raise


def _end(pod: Pod) -> _End | None:
    ended = (container_status(pod, _CONTAINER).get("state") or {}).get("terminated")
    if not ended or pod["status"].get("reason"):
        return None
    return _End(ended["exitCode"], " ".join((ended.get("message") or ended.get("reason") or "").split()))


def _did_not_run(core: client.CoreV1Api, claim: Any, pod: Pod) -> UserError:
    metadata, status = pod["metadata"], pod["status"]
    events = events_of(core, metadata["namespace"], metadata["uid"]) or []
    reasons = [why_not_running(pod, _CONTAINER)]
    if status.get("phase") == "Failed":
        reasons = [f"{status.get('reason', 'Failed')} ({status.get('message', 'no message')})"]
    reasons += [str(event) for event in events if event.is_warning][-1:]
    return refuse(
        f"volume {claim.metadata.name}",
        f"one that pod {metadata['name']} did not prepare in time: {'; '.join(reasons)}",
        "a volume that a pod of the steps' image can mount within wait_seconds",
        "Mend what is said (image is the parameter image), and start again; the pod was deleted.",
    )
