"""Reads a pod's log as it grows, each line once and in order, through dropped connections."""

import math
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import urllib3
from kubernetes import client

from kfp_finetune.cluster.client import REQUEST_TIMEOUT
from kfp_finetune.cluster.watching import REFUSAL_SECONDS

SILENCE_SECONDS = 120
"""A connection without a line for so long is opened again, since it may be dead."""

CLOCK_MARGIN = 60
"""Seconds by which this clock and a node's may differ."""

LONGEST_PAUSE = 10.0

LONGEST_LINE = 2**20
"""Bytes of a line that are kept."""

TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
"""As a node writes it before each line, in its own time zone."""

UNAUTHORIZED = (401, 403)
"""What an API server that has just started answers too, for up to `REFUSAL_SECONDS`."""

TOO_MANY_REQUESTS = 429
"""What a busy API server answers."""


@dataclass(frozen=True)
class Line:
    """A line of a log.

    Args:
        time: When it was written, by the node's clock: RFC 3339 in UTC with nine digits, so that text sorts by time.
        text: Without its end.
    """

    time: str
    text: str


@dataclass(frozen=True)
class Place:
    """Up to where a log has been read.

    Args:
        time: Of the latest line.
        count: Lines of that time.
    """

    time: str = ""
    count: int = 0

    def moved(self, line: Line) -> "Place":
        """The place behind a line."""
        if line.time == self.time:
            return Place(self.time, self.count + 1)
        return Place(line.time, 1) if line.time > self.time else self


def follow_log(
    core: client.CoreV1Api, namespace: str, pod: str, container: str, stop: threading.Event
) -> Iterator[Line]:
    """Yields the lines of a container's log until it ends.

    Args:
        core: The cluster's client.
        namespace: Of the pod.
        pod: Its name.
        container: Name of a container that has started.
        stop: Ends the reading, at the latest after the next line.

    Raises:
        kubernetes.client.ApiException: If the log cannot be read: the pod is gone, or there is no right to.
    """
    place, pause, is_last, refused_since = Place(), 0.0, False, 0.0
    while not stop.wait(random.uniform(0.5, 1) * pause):
        pause = min(max(0.5, 2 * pause), LONGEST_PAUSE)
        try:
            response = core.read_namespaced_pod_log(
                pod, namespace, container=container, follow=True, timestamps=True, since_seconds=_since(place.time),
                _preload_content=False, _request_timeout=(REQUEST_TIMEOUT[0], SILENCE_SECONDS),
            )  # fmt: skip
            refused_since = 0.0
            with closing(response):
                for line in _after(place, _lines(response, whole=is_last)):
                    place, pause = place.moved(line), 0.0
                    yield line
                    if stop.is_set():
                        return
            if is_last:
                return
            # What was written between the end of the connection and that of the container is read by one more.
            is_last = _has_ended(core, namespace, pod, container)
        except client.ApiException as error:
            if error.status >= 500 or error.status == TOO_MANY_REQUESTS:
                continue
            refused_since = refused_since or time.monotonic()
            if error.status in UNAUTHORIZED and time.monotonic() - refused_since < REFUSAL_SECONDS:
                continue
            if is_last:
                return
            raise
        except (urllib3.exceptions.HTTPError, OSError):
            continue


def _after(place: Place, lines: Iterator[Line]) -> Iterator[Line]:
    """The lines behind a place; a connection begins some seconds before it."""
    skipped = 0
    for line in lines:
        if line.time > place.time:
            yield line
            break
        skipped += line.time == place.time
        if skipped > place.count:
            yield line
    yield from lines


def _since(seen: str) -> int | None:
    if not seen:
        return None
    ago = datetime.now(UTC) - datetime.fromisoformat(seen)
    return max(1, math.ceil(ago.total_seconds()) + CLOCK_MARGIN)


def _lines(response: urllib3.BaseHTTPResponse, whole: bool) -> Iterator[Line]:
    """The lines of an answer, without a last one that has no end unless the log is known to end there."""
    rest = b""
    for chunk in response.stream(65536, decode_content=False):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, map(_line, lines))
        rest = rest[:LONGEST_LINE]
    if whole and (last := _line(rest)):
        yield last


def _line(raw: bytes) -> Line | None:
    """A line with its time; None for what a node says instead of a log."""
    stamp, _, text = raw.decode(errors="replace").partition(" ")
    if not (match := TIME.fullmatch(stamp)):
        return None
    second, fraction, zone = match.groups()
    there = datetime.fromisoformat(second + zone.replace("Z", "+00:00"))
    return Line(f"{there.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{fraction or '':0<9}Z", text)


def _has_ended(core: client.CoreV1Api, namespace: str, pod: str, container: str) -> bool:
    """Whether a container has ended, so that its log has; a rotated log ends a connection too."""
    status = core.read_namespaced_pod(pod, namespace).status
    states = {entry.name: entry.state for entry in status.container_statuses or ()}
    return container not in states or states[container].running is None
