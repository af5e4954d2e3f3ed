"""What Argo Workflows makes of a pipeline: nodes, which the API server hands out as a run's tasks.

Every node has a full name, from which its id is made: the workflow's name and the FNV-1a hash of the full name. For a
task "work" in the pipeline's root and a workflow "small-kxtbc" these are, each below the one that lists it as a child:

    small-kxtbc                                     the workflow; its attempt is
    small-kxtbc(0)
    small-kxtbc(0).root-driver                      a pod's node; its attempt is the pod
    small-kxtbc(0).root-driver(0)
    small-kxtbc(0).root                             what came before it is its parent, so it is a child of the driver
    small-kxtbc(0).root(0)
    small-kxtbc(0).root(0).work-driver
    small-kxtbc(0).root(0).work-driver(0)
    small-kxtbc(0).root(0).work
    small-kxtbc(0).root(0).work(0)
    small-kxtbc(0).root(0).work(0).executor
    small-kxtbc(0).root(0).work(0).executor(0)      the step's pod

A group of tasks (a condition, an exit handler) lies between root(0) and the task in the same manner as "root" does. An
exit task lies in "GROUP.onExit(0)", which is a second child of the node of its group.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

NEVER = "0001-01-01T00:00:00Z"
OPEN = ("PENDING", "RUNNING")
OMITTED = ""
"""The API has no word for what Argo leaves out; such a task comes without a state."""

EXIT = "ALL_UPSTREAM_TASKS_COMPLETED"


@dataclass(frozen=True)
class Task:
    """A task of the pipeline: a step that has a pod, or a group.

    Args:
        path: Names of the groups that it is in and its own, joined by "/".
        needs: Names of the tasks beside it that it waits for.
        handles: Name of the group beside it after whose end it runs, if it is an exit task.
        cached: Whether its result is kept for the next run.
    """

    path: str
    is_group: bool
    needs: tuple[str, ...]
    handles: str
    cached: bool
    template: str

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path.rpartition("/")[2]

    @property
    def group(self) -> str:
        """Path of the group that it is in; empty for the pipeline's root."""
        return self.path.rpartition("/")[0]


@dataclass
class Node:
    """A node of the workflow, as far as the API shows it."""

    name: str
    display: str
    task_id: str
    state: str
    started: str
    pod: str = ""
    ended: str = NEVER
    history: list[dict[str, str]] = field(default_factory=list)
    children: list[str] = field(default_factory=list)


def hashed(name: str) -> int:
    """The FNV-1a hash of 32 bits."""
    value = 2166136261
    for byte in name.encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def read_tasks(spec: dict[str, Any]) -> dict[str, Task]:
    """All tasks of a compiled pipeline by their paths."""
    return {task.path: task for task in _read_group(spec, spec["root"], "")}


def _read_group(spec: dict[str, Any], component: dict[str, Any], above: str) -> Iterator[Task]:
    for name, task in component["dag"]["tasks"].items():
        inner = spec["components"][task["componentRef"]["name"]]
        if "parameterIterator" in task or "artifactIterator" in task:
            raise NotImplementedError(f"{name} is a loop; the tests' server makes no nodes for loops")
        policy, needs = task.get("triggerPolicy", {}), tuple(task.get("dependentTasks", ()))
        exits = policy.get("strategy") == EXIT
        retries = "retry-" if "retryPolicy" in task else ""
        path = f"{above}/{name}".lstrip("/")
        yield Task(
            path=path,
            is_group="dag" in inner,
            needs=() if exits else needs,
            handles=needs[0] if exits else "",
            cached=bool(task.get("cachingOptions", {}).get("enableCache")),
            template=f"{retries}system-container-impl",
        )
        if "dag" in inner:
            yield from _read_group(spec, inner, path)


@dataclass
class Workflow:
    """The nodes of one run.

    Args:
        now: Gives the time.
        next: Gives a time that was not given before: no two steps begin at once.
        new_id: Makes an id of a task.
    """

    name: str
    tasks: dict[str, Task]
    now: Callable[[], str]
    next: Callable[[], str]
    new_id: Callable[[], str]
    nodes: dict[str, Node] = field(default_factory=dict)
    outbound: dict[str, list[str]] = field(default_factory=dict)
    """Of each group that has ended: the nodes that the next one hangs from."""

    def task(self, path: str) -> Task:
        """The task of a path, or of the end of one if that is enough to know it."""
        found = [task for task in self.tasks.values() if f"/{task.path}".endswith(f"/{path}")]
        if len(found) != 1:
            raise ValueError(f"{path} names {len(found)} tasks of {', '.join(self.tasks)}")
        return found[0]

    def node_id(self, name: str) -> str:
        """The id that Argo gives to a node."""
        return self.name if name == self.name else f"{self.name}-{hashed(name)}"

    def base(self, group: str) -> str:
        """Full name of the node that holds a group's tasks."""
        return self.place(self.tasks[group]) + "(0)" if group else f"{self.name}(0).root(0)"

    def place(self, task: Task) -> str:
        """Full name of a task's node."""
        hook = f".{task.handles}.onExit(0)" if task.handles else ""
        return f"{self.base(task.group)}{hook}.{task.name}"

    def executor(self, task: Task) -> str:
        """Full name of the node that is a step's pod."""
        return f"{self.place(task)}(0).executor(0)"

    def state(self, task: Task) -> str | None:
        """A task's state; None before it has begun."""
        node, driver = self.nodes.get(self.place(task)), self.nodes.get(f"{self.place(task)}-driver")
        if driver and driver.state == "FAILED":
            return "FAILED"
        if node or not driver:
            return node.state if node else None
        return OMITTED if driver.state == OMITTED else "RUNNING"

    def open(self, name: str, base: str, parents: list[str], template: str = "") -> None:
        """Makes a node and its first attempt, which is a pod that waits for a machine if it has a template."""
        display, now = name.removeprefix(f"{base}."), self.next()
        self._add(name, display, "RUNNING", parents, now)
        self._add(f"{name}(0)", f"{display}(0)", "PENDING" if template else "RUNNING", [name], now)
        if template:
            self.nodes[f"{name}(0)"].pod = f"{self.name}-{template}-{hashed(f'{name}(0)')}"

    def leave(self, name: str, base: str, parents: list[str], state: str) -> None:
        """Makes a node of something that is not run: skipped or omitted."""
        now = self.next()
        self._add(name, name.removeprefix(f"{base}."), state, parents, now)
        self.nodes[name].ended = now

    def _add(self, name: str, display: str, state: str, parents: list[str], now: str) -> None:
        self.nodes[name] = Node(name, display, self.new_id(), state, now, history=[_moment(now, state)])
        for parent in parents:
            if name not in self.nodes[parent].children:
                self.nodes[parent].children.append(name)

    def turn(self, name: str, state: str) -> None:
        """Brings a node into a state."""
        node = self.nodes[name]
        if node.state == state:
            return
        node.state = state
        node.history.append(_moment(self.now(), state))
        if state not in OPEN:
            node.ended = self.now()

    def close(self, name: str, state: str) -> None:
        """Ends a node and its attempt."""
        for each in f"{name}(0)", name:
            if each in self.nodes:
                self.turn(each, state)

    def ends(self, name: str) -> list[str]:
        """The nodes from which hangs what comes after a node."""
        attempt = self.nodes.get(f"{name}(0)")
        return [attempt.name] if attempt and attempt.pod else self.outbound.get(name, [name])

    def begin(self, state: str = "RUNNING") -> None:
        """Makes the workflow's own nodes and brings the root's driver into a state."""
        driver = f"{self.name}(0).root-driver"
        if driver not in self.nodes:
            self.open(self.name, "", [])
            self.open(driver, f"{self.name}(0)", [f"{self.name}(0)"], "system-dag-driver")
        self._drive(driver, state)
        if state == "SUCCEEDED" and f"{self.name}(0).root" not in self.nodes:
            self.open(f"{self.name}(0).root", f"{self.name}(0)", [f"{driver}(0)"])

    def _drive(self, driver: str, state: str) -> None:
        if self.nodes[driver].state not in OPEN:
            return
        if state != "PENDING" and self.nodes[f"{driver}(0)"].state == "PENDING":
            self.turn(f"{driver}(0)", "RUNNING")
        if state not in OPEN:
            self.close(driver, state)

    def drive(self, task: Task, state: str) -> None:
        """Brings a task's driver into a state; all before it has succeeded."""
        self.reach(task)
        driver, base = f"{self.place(task)}-driver", self.place(task).rpartition(".")[0]
        if driver not in self.nodes:
            template = "system-dag-driver" if task.is_group else "system-container-driver"
            self.open(driver, base, self._before(task) or [base], template)
        self._drive(driver, state)
        if state == "FAILED":
            self.leave(self.place(task), base, [driver], OMITTED)
            self.settle(task.group)

    def _before(self, task: Task) -> list[str]:
        needs = [self._beside(task, name) for name in task.needs]
        return [end for need in needs for end in self.ends(self.place(need))]

    def _beside(self, task: Task, name: str) -> Task:
        return self.tasks[f"{task.group}/{name}".lstrip("/")]

    def reach(self, task: Task) -> None:
        """Brings the workflow to where a task may begin: steps before it that have not begun succeed."""
        if task.group:
            self.enter(self.tasks[task.group])
        else:
            self.begin("SUCCEEDED")
        if task.handles:
            self._hook(task)
        for need in (self._beside(task, name) for name in task.needs):
            if self.state(need) is None and not need.is_group:
                self.run(need)
                self.finish(need, True)
            if self.state(need) != "SUCCEEDED":
                raise ValueError(f"{task.path} waits for {need.path}, which is {self.state(need) or 'not run'}")

    def _hook(self, task: Task) -> None:
        handled = self._beside(task, task.handles)
        if self.state(handled) in (None, *OPEN):
            raise ValueError(f"{task.path} waits for the end of {handled.path}")
        hook = f"{self.place(handled)}.onExit"
        if hook not in self.nodes:
            self.open(hook, self.base(task.group), [self.place(handled)])

    def enter(self, group: Task) -> None:
        """Opens a group, if it is not open."""
        if self.state(group) not in (None, *OPEN):
            raise ValueError(f"{group.path} has ended")
        self.drive(group, "SUCCEEDED")
        if self.place(group) not in self.nodes:
            self.open(self.place(group), self.base(group.group), [f"{self.place(group)}-driver(0)"])

    def run(self, task: Task, state: str = "RUNNING") -> None:
        """Brings a step's pod into a state."""
        if self.executor(task) not in self.nodes:
            self._open_step(task)
            inner = f"{self.place(task)}(0)"
            self.open(f"{inner}.executor", inner, [inner], task.template)
        if self.nodes[self.executor(task)].state not in OPEN:
            raise ValueError(f"{task.path} has ended")
        self.turn(self.executor(task), state)

    def _open_step(self, task: Task) -> None:
        self.drive(task, "SUCCEEDED")
        place = self.place(task)
        if place not in self.nodes:
            self.open(place, place.rpartition(".")[0], [f"{place}-driver(0)"])

    def finish(self, task: Task, succeeded: bool) -> None:
        """Ends a step's pod, and all groups that have nothing left to do."""
        if self.nodes[self.executor(task)].state not in OPEN:
            raise ValueError(f"{task.path} has ended")
        self.turn(self.executor(task), "RUNNING")
        state, place = "SUCCEEDED" if succeeded else "FAILED", self.place(task)
        self.close(f"{place}(0).executor", state)
        self._end_step(task, state, f"{place}(0).executor")

    def _end_step(self, task: Task, state: str, last: str) -> None:
        place = self.place(task)
        self.outbound[place] = self.ends(last)
        self.close(place, state)
        if task.handles:
            self.close(place.removesuffix(f"(0).{task.name}"), state)
        self.settle(task.group)

    def reuse(self, task: Task) -> None:
        """Takes a step's result from the cache."""
        self._open_step(task)
        inner = f"{self.place(task)}(0)"
        self.leave(f"{inner}.executor", inner, [inner], "SKIPPED")
        self._end_step(task, "SUCCEEDED", f"{inner}.executor")

    def skip(self, task: Task) -> None:
        """Leaves out a task whose condition is not met."""
        self.drive(task, "SUCCEEDED")
        place = self.place(task)
        self.leave(place, place.rpartition(".")[0], [f"{place}-driver(0)"], "SKIPPED")
        self.settle(task.group)

    def settle(self, group: str) -> None:
        """Omits what waits for a task that has not succeeded, and ends the group if nothing is left to do."""
        inside = [task for task in self.tasks.values() if task.group == group]
        while waiting := [task for task in inside if self._is_lost(task)]:
            for task in waiting:
                base, place = self.base(group), self.place(task)
                self.leave(f"{place}-driver", base, self._before(task), OMITTED)
                self.leave(place, base, [f"{place}-driver"], OMITTED)
        states = [self.state(task) for task in inside]
        if not group or any(state is None or state in OPEN for state in states):
            return  # the root ends with the run
        needed = {name for task in inside for name in task.needs}
        last = [self.place(task) for task in inside if task.name not in needed and not task.handles]
        owner = self.tasks[group]
        self.outbound[self.place(owner)] = [end for place in last for end in self.ends(place)]
        self.close(self.place(owner), "FAILED" if "FAILED" in states else "SUCCEEDED")
        self.settle(owner.group)

    def _is_lost(self, task: Task) -> bool:
        states = [self.state(self._beside(task, name)) for name in task.needs]
        ended = all(state is not None and state not in OPEN for state in states)
        return self.state(task) is None and ended and any(state != "SUCCEEDED" for state in states)

    def end(self, state: str) -> None:
        """Ends whatever has not ended."""
        for name in reversed(self.nodes):
            if self.nodes[name].state in OPEN:
                self.turn(name, state)

    def again(self) -> None:
        """Opens what has failed once more; the pods that failed are gone, and so is the exit handler."""
        failed = {name: node for name, node in self.nodes.items() if node.state in ("FAILED", OMITTED)}
        for name, node in failed.items():
            attempt = failed.get(f"{name}(0)")
            if node.pod or (attempt and attempt.pod) or node.state == OMITTED:
                del self.nodes[name]
            else:
                node.ended = NEVER
                self.turn(name, "RUNNING")
        self.nodes = {name: node for name, node in self.nodes.items() if ".onExit" not in name}
        for node in self.nodes.values():
            node.children = [name for name in node.children if name in self.nodes]


def _moment(time: str, state: str) -> dict[str, str]:
    return {"update_time": time} | ({"state": state} if state else {})
