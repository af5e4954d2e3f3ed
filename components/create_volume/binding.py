"""Wait until a claim can be used: bound to storage, or bound later by the first pod that mounts it."""

import math
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import urllib3
from kubernetes import client, watch

from kfp_finetune.cluster.client import api_call
from kfp_finetune.errors import UserError, refuse

_CLAIMS = "persistentvolumeclaims"
_BOUND_BY_A_POD = {"WaitForFirstConsumer", "WaitForPodScheduled"}
_LONGEST_WATCH = 15
_EVENTS_SHOWN = 5


@dataclass(frozen=True)
class Event:
    """What Kubernetes reported about an object.

    Args:
        reason: The short reason, such as "ProvisioningFailed".
        message: The sentence that goes with it.
        is_warning: Whether Kubernetes means it as one.

    """

    reason: str
    message: str
    is_warning: bool = False

    def __str__(self) -> str:
        """Return the event as one line."""
        return f"{self.reason}: {self.message}"


class HopelessClaimError(UserError):
    """A claim that can never be bound, however long one waits."""


def wait_until_usable(api: client.ApiClient, claim: Any, wait_seconds: int) -> Any:
    """Wait for a claim to be bound, unless its class binds only when a pod mounts it.

    The claim is watched; between watches, which last 1 to 15 seconds, what its events newly say is printed.

    Args:
        api: The cluster's client.
        claim: The claim as last read (`V1PersistentVolumeClaim`).
        wait_seconds: Longest wait, in seconds.

    Returns:
        The claim as it is when it can be used.

    Raises:
        HopelessClaimError: If no storage class, or one that does not exist, is to make its storage.
        UserError: If the claim is still pending after the wait, is lost or is deleted meanwhile, or if reading or
            watching it is forbidden.

    """
    core = client.CoreV1Api(api)
    deadline = time.monotonic() + wait_seconds
    said: set[Event] = set()
    watch_seconds = 1
    while not _settled(claim):
        storage_class = _storage_class(api, claim)
        if storage_class and storage_class.volume_binding_mode == "WaitForFirstConsumer":
            break
        events = events_of(core, claim.metadata.namespace, claim.metadata.uid)
        if events and events[-1].reason in _BOUND_BY_A_POD:
            break
        for event in dict.fromkeys(events or []):
            if event not in said:
                print(f"volume {claim.metadata.name} waits for its storage. {event}", flush=True)
                said.add(event)
        if not storage_class:
            _refuse_hopeless(claim, events or [])
        left = deadline - time.monotonic()
        if left <= 0:
            raise _still_pending(claim, events, wait_seconds)
        claim = _watch_once(core, claim, math.ceil(min(watch_seconds, left)))
        watch_seconds = min(2 * watch_seconds, _LONGEST_WATCH)
    return claim


def _settled(claim: Any) -> bool:
    name, namespace = claim.metadata.name, claim.metadata.namespace
    if claim.metadata.deletion_timestamp:
        raise _gone(name)
    if claim.status.phase == "Lost":
        raise refuse(
            f"volume {name}",
            "a claim whose storage is gone (Lost)",
            "a claim that is bound",
            f"Delete it (kubectl -n {namespace} delete pvc {name}) and start again.",
        )
    return claim.status.phase == "Bound"


def _gone(name: str) -> UserError:
    return refuse(
        f"volume {name}",
        "a claim that was deleted during the wait for its storage",
        "a claim that stays until the run ends",
        "Find out who deleted it (another run with the same volume name?) and start again.",
    )


def _storage_class(api: client.ApiClient, claim: Any) -> Any:
    """A claim's storage class; None if the claim names none, if there is none, or without the right to read it."""
    name = claim.spec.storage_class_name
    if not name:
        return None
    with api_call("get", "storageclasses.storage.k8s.io"):
        try:
            return client.StorageV1Api(api).read_storage_class(name)
        except client.ApiException as error:
            if error.status in (403, 404):
                return None
            raise


def events_of(core: client.CoreV1Api, namespace: str, uid: str) -> list[Event] | None:
    """Return the events of an object, oldest first; None if this account has no right to list events.

    Args:
        core: The cluster's client.
        namespace: Namespace of the object.
        uid: Its uid.

    Raises:
        UserError: If the cluster cannot be reached or rejects the credentials.

    """
    with api_call("list", "events", namespace):
        try:
            found = core.list_namespaced_event(namespace, field_selector=f"involvedObject.uid={uid}")
        except client.ApiException as error:
            if error.status == 403:
                return None
            raise
    found.items.sort(key=lambda event: event.last_timestamp or event.event_time or event.metadata.creation_timestamp)
    return [
        Event(event.reason or "", " ".join((event.message or "").split()), event.type == "Warning")
        for event in found.items
    ]


def _refuse_hopeless(claim: Any, events: list[Event]) -> None:
    name, storage_class = claim.metadata.name, claim.spec.storage_class_name
    for event in events:
        if event.reason == "FailedBinding" and not storage_class:
            raise HopelessClaimError(
                refuse(
                    "storage_class",
                    f"none, and the cluster has no default class for volume {name} ({event})",
                    "a class of the cluster, or nothing where the cluster has a default class",
                    "Take one from `kubectl get storageclass`, or let an administrator mark one as the default.",
                ).problems
            )
        if event.reason == "ProvisioningFailed" and storage_class and event.message == _no_such_class(storage_class):
            raise HopelessClaimError(
                refuse(
                    "storage_class",
                    f"{storage_class!r} for volume {name} ({event})",
                    "a class that exists in the cluster, or nothing for its default class",
                    "Take one from `kubectl get storageclass`.",
                ).problems
            )


def _no_such_class(storage_class: str) -> str:
    return f'storageclass.storage.k8s.io "{storage_class}" not found'


def _still_pending(claim: Any, events: list[Event] | None, wait_seconds: int) -> UserError:
    name, namespace = claim.metadata.name, claim.metadata.namespace
    if events is None:
        reasons = "why is unknown, since this account may not list events"
    else:
        reasons = "; ".join(map(str, list(dict.fromkeys(events))[-_EVENTS_SHOWN:])) or "without any event"
    return refuse(
        f"volume {name}",
        f"a claim that is still Pending after {wait_seconds} s ({reasons})",
        "one that is bound within wait_seconds, or of a class that binds when the first pod mounts it",
        "Mend what the events say and start again: the claim is kept and waited for. To ask for other storage, "
        f"delete it first (kubectl -n {namespace} delete pvc {name}) or take another name.",
    )


def _watch_once(core: client.CoreV1Api, claim: Any, seconds: int) -> Any:
    """Return the claim as soon as it is no longer merely pending, or else as it is after the given seconds."""
    name, namespace = claim.metadata.name, claim.metadata.namespace
    with api_call("get", _CLAIMS, namespace):
        try:
            now = core.read_namespaced_persistent_volume_claim(name, namespace)
        except client.ApiException as error:
            raise (_gone(name) if error.status == 404 else error) from error
    if now.metadata.uid != claim.metadata.uid:
        raise _gone(name)
    stream = watch.Watch().stream(
        core.list_namespaced_persistent_volume_claim,
        namespace,
        field_selector=f"metadata.name={name}",
        resource_version=now.metadata.resource_version,
        timeout_seconds=seconds,
        _request_timeout=(10, seconds + 10),
    )
    with api_call("watch", _CLAIMS, namespace), closing(stream):
        try:
            while now.status.phase == "Pending" and not now.metadata.deletion_timestamp:
                change = next(stream, None)
                if change is None:
                    break
                now = change["object"]
        except client.ApiException as error:
            if error.status != 410:
                raise
        except (urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError):
            pass
    return now
