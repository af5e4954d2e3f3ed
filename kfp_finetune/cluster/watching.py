"""Follows objects of the cluster as they change, through dropped connections and restarts of the API server."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import Queue
from typing import Any

import urllib3
from kubernetes import client, watch

from kfp_finetune.cluster.client import REQUEST_TIMEOUT

REFUSALS = (401, 403, 404)
"""Answers that another attempt will not change."""

REFUSAL_SECONDS = 30
"""An API server that has just started refuses what it will allow once it has read the roles."""

WATCH_SECONDS = 120
"""Longest watch; the API server ends longer ones by itself."""

LONGEST_PAUSE = 10.0
"""Seconds between two attempts to reach an API server that does not answer, at most."""

UNREACHABLE = (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)

UNREADABLE = (ValueError, KeyError)
"""What reading an answer raises that is none of the API server's, such as a proxy's page."""


@dataclass(frozen=True)
class Listed:
    """All objects as they are now.

    Args:
        kind: What was listed.
        objects: By name, as JSON.
    """

    kind: str
    objects: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Changed:
    """One object as it is now.

    Args:
        kind: What it is.
        name: Its name.
        object: As JSON; as it last was, when it is gone.
        gone: Whether it is gone.
    """

    kind: str
    name: str
    object: Mapping[str, Any]
    gone: bool


@dataclass(frozen=True)
class Broken:
    """Following has ended, since the cluster refuses it.

    Args:
        kind: What was to be followed.
        error: Why.
    """

    kind: str
    error: client.ApiException


def follow(kind: str, fetch: Callable[..., Any], events: "Queue[Any]", stop: threading.Event) -> None:
    """Puts `Listed`, then `Changed` into a queue until told to stop, or `Broken` if the cluster refuses it.

    Args:
        kind: Told with every event.
        fetch: A list call of the Kubernetes client, given all of its arguments by `functools.partial`.
        events: Where they go.
        stop: Ends the following, at the latest when the current watch ends.
    """
    version, pause, refused_since = "", 0.0, 0.0
    while not stop.wait(random.uniform(0.5, 1) * pause):
        pause = min(max(0.5, 2 * pause), LONGEST_PAUSE)
        try:
            if not version:
                found = json.loads(fetch(_preload_content=False).data)
                version = found["metadata"]["resourceVersion"]
                events.put(Listed(kind, {item["metadata"]["name"]: item for item in found["items"]}))
            began = time.monotonic()
            for event in _watch(fetch, version):
                version, pause, refused_since = event["object"]["metadata"]["resourceVersion"], 0.0, 0.0
                if event["type"] != "BOOKMARK":
                    events.put(_change(kind, event))
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = 0.0
        except client.ApiException as error:
            version = "" if error.status == 410 else version
            if error.status in REFUSALS:
                refused_since = refused_since or time.monotonic()
                if time.monotonic() - refused_since >= REFUSAL_SECONDS:
                    events.put(Broken(kind, error))
                    return
        except UNREACHABLE:
            continue
        except UNREADABLE:
            version = ""


def _watch(fetch: Callable[..., Any], version: str) -> Iterator[dict[str, Any]]:
    return watch.Watch().stream(
        fetch,
        resource_version=version,
        allow_watch_bookmarks=True,
        timeout_seconds=WATCH_SECONDS,
        _request_timeout=(REQUEST_TIMEOUT[0], WATCH_SECONDS + REQUEST_TIMEOUT[1]),
    )


def _change(kind: str, event: Mapping[str, Any]) -> Changed:
    return Changed(kind, event["object"]["metadata"]["name"], event["object"], event["type"] == "DELETED")
