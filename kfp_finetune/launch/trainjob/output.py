"""What the first node prints, handed on line by line, each once, whichever step reads it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Queue
from typing import Any

import urllib3
from kubernetes import client

from kfp_finetune.cluster.logs import Line, follow_log
from kfp_finetune.cluster.trainer import NODE
from kfp_finetune.errors import UserError
from kfp_finetune.launch.trainjob.diagnosis import Pod, container, node_of
from kfp_finetune.launch.trainjob.lease import Lease, beat


@dataclass(frozen=True)
class Printed:
    """A line that the first node printed.

    Args:
        pod: Uid of its pod.
        line: The line.
    """

    pod: str
    line: Line


@dataclass(frozen=True)
class Silent:
    """The log of a pod has ended.

    Args:
        pod: Its uid.
    """

    pod: str


def has_started(pod: Pod) -> bool:
    """Whether a pod has a log."""
    state = container(pod).get("state") or {}
    return "running" in state or "terminated" in state


class Output:
    """Reads the log of the first node's pod, and of the pod that replaces it.

    A line is noted in the job's annotations before it is printed: so a step that was killed and started again prints
    none twice.

    Args:
        lease: The job.
        events: Gets `Printed` and `Silent`.
        stop: Ends the reading.
        on_line: Called with every line, also those that an earlier step has printed.
    """

    def __init__(self, lease: Lease, events: "Queue[Any]", stop: threading.Event, on_line: Callable[[str], None]):
        self._lease = lease
        self._events = events
        self._stop = stop
        self._on_line = on_line
        self._read: set[str] = set()
        self._ended: set[str] = set()
        self._waiting: list[Printed] = []

    def attend(self, pod: Pod) -> None:
        """Begins to read a pod's log if it is the first node's and has started."""
        uid = pod["metadata"]["uid"]
        if node_of(pod) == 0 and has_started(pod) and uid not in self._read:
            self._read.add(uid)
            threading.Thread(target=self._follow, args=(pod["metadata"]["name"], uid), daemon=True).start()

    def _follow(self, name: str, uid: str) -> None:
        cluster = self._lease.cluster
        try:
            core = client.CoreV1Api(cluster.api)
            for line in follow_log(core, cluster.namespace, name, NODE, self._stop):
                self._events.put(Printed(uid, line))
        except (client.ApiException, urllib3.exceptions.HTTPError) as error:
            reason = getattr(error, "reason", None) or error
            print(f"the log of {name} cannot be read ({reason}); it is kept in the training's folder", flush=True)
        self._events.put(Silent(uid))

    def take(self, event: "Printed | Silent") -> None:
        """Takes what a log thread put into the queue."""
        if isinstance(event, Silent):
            self._ended.add(event.pod)
            return
        self._on_line(event.line.text)
        pod, time = self._lease.printed
        if event.pod != pod or event.line.time > time:
            self._waiting.append(event)

    @property
    def has_lines(self) -> bool:
        """Whether lines wait to be printed."""
        return bool(self._waiting)

    @property
    def has_begun(self) -> bool:
        """Whether any log is or was read."""
        return bool(self._read)

    @property
    def is_silent(self) -> bool:
        """Whether every log that was begun has ended."""
        return self._read == self._ended

    def flush(self) -> None:
        """Notes the lines that wait as printed, together with the sign that this step is alive, and prints them.

        If the API server does not answer, they wait for the next time.
        """
        last = self._waiting[-1] if self._waiting else None
        try:
            beat(self._lease, last.pod if last else "", last.line.time if last else "")
        except UserError:
            return
        except client.ApiException as error:
            if error.status not in (404, 409):
                return
        self.print()

    def print(self) -> None:
        """Prints the lines that wait."""
        for event in self._waiting:
            print(event.line.text)
        self._waiting.clear()
        print(end="", flush=True)
