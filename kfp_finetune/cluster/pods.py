"""What pods of this library have in common, and what a pod's status says."""

from collections.abc import Mapping
from typing import Any

Pod = Mapping[str, Any]
"""A pod as the API writes it in JSON."""

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Security context of containers, as the Pod Security Standard `restricted` asks for; the images run under any user."""

NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
"""Label and annotation of pods that end: a mesh's sidecar would keep them from it."""


def container_status(pod: Pod, name: str) -> Mapping[str, Any]:
    """The status of a container of a pod; empty while there is none.

    Args:
        pod: The pod.
        name: The container's.
    """
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((status for status in statuses if status["name"] == name), {})


def why_not_running(pod: Pod, name: str) -> str:
    """What keeps a container of a pod from running, in words.

    Args:
        pod: The pod.
        name: The container's.
    """
    state = container_status(pod, name).get("state") or {}
    waiting, terminated = state.get("waiting") or {}, state.get("terminated")
    if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        return f"{waiting['reason']} ({waiting.get('message', 'no message')})"
    if terminated:
        return f"its container ended with exit status {terminated['exitCode']}"
    for one in (pod.get("status") or {}).get("conditions") or ():
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return f"{one.get('reason')} ({one.get('message')})"
    return "its container is being created (image, volumes)"
