"""A run: what the API shows of it, and how a test moves it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from servers.kfp.workflow import OPEN, Node, Task, Workflow

EPOCH = "1970-01-01T00:00:00Z"
ENDS = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")

PLUGIN = "failed to build MLflow request context: failed to read plugins.mlflow.tls.caBundlePath "
PLUGIN += '"/etc/mlflow-tracking-ca/ca.crt": open /etc/mlflow-tracking-ca/ca.crt: no such file or directory'
PLUGIN_AT_END = "MLflow terminal sync skipped: missing parent root_run_id in plugins_output.mlflow"


@dataclass
class Run:
    """A run.

    Args:
        shown: What it was made of: ids, names, pipeline and parameters, as the API shows them.
        lock: Held by requests and by the test's moves.
    """

    shown: dict[str, Any]
    namespace: str
    workflow: Workflow
    created: str
    now: Callable[[], str]
    lock: RLock
    state: str = "PENDING"
    storage_state: str = "AVAILABLE"
    finished: str = EPOCH
    history: list[dict[str, str]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    cache_entries: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.history = [{"update_time": self.created, "state": self.state}]

    @property
    def id(self) -> str:
        """Its id."""
        return self.shown["run_id"]

    @property
    def steps(self) -> list[str]:
        """Paths of all steps of its pipeline, groups left out."""
        return [task.path for task in self.workflow.tasks.values() if not task.is_group]

    # What a test does. A step is named by its path or the end of its path, such as "torchtune-train".

    def driver(self, step: str, state: str = "RUNNING") -> None:
        """Brings the driver of a step or group into a state; "" names the run's own driver.

        Args:
            step: Its path.
            state: PENDING, RUNNING, SUCCEEDED or FAILED.
        """
        with self.lock:
            self._move()
            if step:
                self.workflow.drive(self.workflow.task(step), state)
            else:
                self.workflow.begin(state)

    def queue(self, step: str) -> None:
        """Makes a step's pod, which does not run yet."""
        with self.lock:
            self._move()
            self.workflow.run(self._step(step), "PENDING")

    def start(self, step: str) -> None:
        """Lets a step's pod run; steps that it waits for and that have not begun succeed before."""
        with self.lock:
            self._move()
            self.workflow.run(self._step(step))

    def log(self, step: str, *lines: str) -> None:
        """Adds lines to what a step's pod has printed."""
        with self.lock:
            name = self.workflow.executor(self._step(step))
            if name not in self.workflow.nodes:
                raise ValueError(f"{step} has no pod")
            self.logs[name] = self.logs.get(name, "") + "".join(f"{line}\n" for line in lines)

    def finish(self, step: str, succeeded: bool = True) -> None:
        """Ends a step; what waits for one that failed is left out."""
        with self.lock:
            self._move()
            task = self._step(step)
            if self.workflow.state(task) is None:
                self.workflow.run(task)
            if succeeded:
                self.record_result(step)
            self.workflow.finish(task, succeeded)

    def record_result(self, step: str) -> None:
        """Notes a step's result for the cache, which the API shows as one more task; `finish` does it too."""
        with self.lock:
            task, now = self._step(step), self.now()
            if task.cached and all(entry["task"] != task.path for entry in self.cache_entries):
                entry = {"run_id": self.id, "task_id": self.workflow.new_id(), "task": task.path}
                times = dict.fromkeys(("create_time", "start_time", "end_time"), now)
                self.cache_entries.append(entry | times | {"execution_id": "2"})

    def reuse(self, step: str) -> None:
        """Takes a step's result from the cache."""
        with self.lock:
            self._move()
            self.workflow.reuse(self._step(step))

    def skip(self, task: str) -> None:
        """Leaves out a step or a group whose condition is not met."""
        with self.lock:
            self._move()
            self.workflow.skip(self.workflow.task(task))

    def lose_pods(self, *steps: str) -> None:
        """Takes the pods of steps away, or all pods of the run."""
        with self.lock:
            named = [self.workflow.executor(self._step(step)) for step in steps]
            self.gone |= set(named or [name for name, node in self.workflow.nodes.items() if node.pod])

    def end(self, state: str = "SUCCEEDED") -> None:
        """Ends the run, and with it whatever still runs: a run that is terminated ends as FAILED."""
        with self.lock:
            self._move()
            self.workflow.end("SUCCEEDED" if state == "SUCCEEDED" else "FAILED")
            self.state, self.finished = state, self.now()
            self.history.append({"update_time": self.finished, "state": state})

    def node_id(self, step: str) -> str:
        """Argo's id of the node that is a step's pod."""
        return self.workflow.node_id(self.workflow.executor(self._step(step)))

    def pod_name(self, step: str) -> str:
        """Name of a step's pod."""
        return self.workflow.nodes[self.workflow.executor(self._step(step))].pod

    def _step(self, step: str) -> Task:
        task = self.workflow.task(step)
        if task.is_group:
            raise ValueError(f"{task.path} is a group")
        return task

    def _move(self) -> None:
        if self.state in ENDS:
            raise ValueError(f"run {self.id} has ended")
        if self.state == "PENDING":
            self.state = "RUNNING"
        if self.history[-1]["state"] != self.state:
            self.history.append({"update_time": self.now(), "state": self.state})

    # What requests do.

    def terminate(self) -> None:
        """Asks the run to end."""
        self.state = "CANCELING"

    def retry(self) -> None:
        """Opens the run once more; what succeeded stays."""
        self.state, self.finished = "RUNNING", EPOCH
        for name, node in self.workflow.nodes.items():
            if node.state == "FAILED":
                self.logs.pop(name, None)
        self.workflow.again()

    def pod_log(self, name: str) -> str | None:
        """What a pod has printed; None if there is no such pod, or it has not begun."""
        for node in self.workflow.nodes.values():
            if node.pod == name and node.name not in self.gone and node.state != "PENDING":
                return self.logs.get(node.name, "")
        return None

    def archived_log(self, node_id: str) -> str | None:
        """What the pod of a node has printed, if it has ended; None if there is no such node."""
        for node in self.workflow.nodes.values():
            if node.pod and self.workflow.node_id(node.name) == node_id and node.state not in OPEN:
                return self.logs.get(node.name, "")
        return None

    def to_json(self) -> dict[str, Any]:
        """The run as the API shows it."""
        message = PLUGIN_AT_END if self.state in ENDS else PLUGIN
        plugin = {"entries": {"experiment_name": {"value": "KFP-Default"}}, "state": "PLUGIN_FAILED"}
        tasks = [self._show(node) for node in self.workflow.nodes.values()]
        tasks += [{name: value for name, value in entry.items() if name != "task"} for entry in self.cache_entries]
        details = {"task_details": sorted(tasks, key=lambda task: task["task_id"])}
        return (
            self.shown
            | {"storage_state": self.storage_state, "created_at": self.created, "scheduled_at": self.created}
            | {"finished_at": self.finished, "state": self.state, "state_history": list(self.history)}
            | ({"run_details": details} if tasks else {})
            | {"plugins_output": {"mlflow": plugin | {"state_message": message}}}
        )

    def _show(self, node: Node) -> dict[str, Any]:
        children = [{"pod_name": self.workflow.node_id(name)} for name in node.children]
        return (
            {"run_id": self.id, "task_id": node.task_id, "display_name": node.display, "create_time": self.created}
            | {"start_time": node.started, "end_time": node.ended}
            | ({"state": node.state} if node.state else {})
            | {"state_history": list(node.history)}
            | ({"child_tasks": children} if children else {})
        )
