"""What the server knows: pipelines, experiments, runs and schedules, as the API shows them."""

import random
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import RLock
from typing import Any

from servers.kfp.refusals import invalid, not_found, taken
from servers.kfp.runs import EPOCH, Run
from servers.kfp.specs import check_parameters, pipeline_of, read_inline
from servers.kfp.workflow import Workflow, hashed, read_tasks

Item = dict[str, Any]

KUBEFLOW = "kubeflow"
DEFAULT_EXPERIMENT = "All runs created without specifying an experiment will be grouped here."


@dataclass
class Clock:
    """Time that does not stand still when two things are made in one second, as their order is that of their times."""

    last: int = 0

    def now(self) -> str:
        """The time, in the form of the API."""
        self.last = max(self.last, int(time.time()))
        return datetime.fromtimestamp(self.last, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def next(self) -> str:
        """A time that was not given before."""
        self.last = max(self.last + 1, int(time.time()))
        return self.now()


@dataclass
class Store:
    """All that was made."""

    multi_user: bool = False
    archives_logs: bool = False
    clock: Clock = field(default_factory=Clock)
    new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    lock: RLock = field(default_factory=RLock)
    pipelines: dict[str, Item] = field(default_factory=dict)
    versions: dict[str, Item] = field(default_factory=dict)
    experiments: dict[str, Item] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    schedules: dict[str, Item] = field(default_factory=dict)
    fired: dict[str, int] = field(default_factory=dict)
    """How many runs each schedule has made."""

    def add_pipeline(self, name: str, description: str, namespace: str, spec: Item) -> Item:
        """Adds a pipeline and its first version, which has the same name."""
        if any(each["name"] == name and each.get("namespace", "") == namespace for each in self.pipelines.values()):
            raise taken(f"Failed to create a new pipeline. The name {name} already exists. Please specify a new name")
        key = self.new_id()
        self.pipelines[key] = {
            "pipeline_id": key,
            **_named(name, description),
            "created_at": self.clock.next(),
            **({"namespace": namespace} if namespace else {}),
        }
        self.add_version(key, name, description, spec)
        return self.pipelines[key]

    def add_version(self, pipeline: str, name: str, description: str, spec: Item) -> Item:
        """Adds a version of a pipeline."""
        if any(each["name"] == name for each in self.versions_of(pipeline)):
            wish = "Please specify a new name"
            raise taken(f"Failed to create a new pipeline version. The name {name} already exists. {wish}")
        key = self.new_id()
        self.versions[key] = {
            "pipeline_id": pipeline,
            "pipeline_version_id": key,
            **_named(name, description),
            "created_at": self.clock.next(),
            "pipeline_spec": spec,
        }
        return self.versions[key]

    def versions_of(self, pipeline: str) -> list[Item]:
        """All versions of a pipeline."""
        return [each for each in self.versions.values() if each["pipeline_id"] == pipeline]

    def add_experiment(self, name: str, description: str, namespace: str) -> Item:
        """Adds an experiment."""
        if not name:
            raise invalid("Experiment must have a non-empty name")
        if self.find_experiment(name, namespace):
            wish = "Please specify a new name"
            raise taken(f"Failed to create a new experiment. The name {name} already exists. {wish}")
        key = self.new_id()
        self.experiments[key] = {
            "experiment_id": key,
            "display_name": name,
            **({"description": description} if description else {}),
            "created_at": self.clock.next(),
            **({"namespace": namespace} if namespace else {}),
            "storage_state": "AVAILABLE",
            "last_run_created_at": EPOCH,
        }
        return self.experiments[key]

    def find_experiment(self, name: str, namespace: str) -> Item | None:
        """The experiment of a name in a namespace."""
        named = (each for each in self.experiments.values() if each["display_name"] == name)
        return next((each for each in named if each.get("namespace", "") == namespace), None)

    def default_experiment(self) -> Item:
        """The experiment of runs that name none."""
        return self.find_experiment("Default", "") or self.add_experiment("Default", DEFAULT_EXPERIMENT, "")

    def resolve_source(self, asked: Item) -> tuple[Item, Item]:
        """The pipeline of a run, and how the API shows where it came from.

        Args:
            asked: The request, with a reference to a version or with a pipeline of its own.
        """
        if "pipeline_spec" in asked:
            return read_inline(asked["pipeline_spec"]), {"pipeline_spec": asked["pipeline_spec"]}
        reference = asked["pipeline_version_reference"]
        version = self._find_version(reference)
        named = {"pipeline_id": version["pipeline_id"], "pipeline_version_id": version["pipeline_version_id"]}
        return version["pipeline_spec"], {"pipeline_version_reference": named}

    def _find_version(self, reference: Item) -> Item:
        pipeline, key = reference.get("pipeline_id", ""), reference.get("pipeline_version_id", "")
        if key:
            if key not in self.versions:
                raise not_found("PipelineVersion", key)
            owner = self.versions[key]["pipeline_id"]
            if pipeline and pipeline != owner:
                raise invalid(f"Pipeline version {key} belongs to pipeline {owner} (not {pipeline})")
            return self.versions[key]
        if not self.versions_of(pipeline):
            raise not_found("PipelineVersion", pipeline)
        return max(self.versions_of(pipeline), key=lambda version: version["created_at"])

    def add_run(self, asked: Item, experiment: Item, source: tuple[Item, Item], **shown: str) -> Run:
        """Adds a run that waits for its beginning; `shown` are further fields that the API shows."""
        spec, source_shown = source
        key, created = self.new_id(), self.clock.next()
        name = self.name_workflow(pipeline_of(spec)["pipelineInfo"]["name"])
        run = {
            "experiment_id": experiment["experiment_id"],
            "run_id": key,
            **{name: asked[name] for name in ("display_name", "description") if asked.get(name)},
            **source_shown,
            **self.show_config(asked),
            "service_account": asked.get("service_account") or self.service_account,
            **shown,
        }
        workflow = Workflow(name, read_tasks(pipeline_of(spec)), self.clock.now, self.clock.next, self.new_id)
        namespace = experiment.get("namespace", "")
        self.runs[key] = Run(run, namespace, workflow, created, self.clock.now, self.lock)
        experiment["last_run_created_at"] = created
        return self.runs[key]

    def name_workflow(self, name: str) -> str:
        """A name for a workflow, made as Kubernetes does."""
        return f"{re.sub('[^a-z0-9-]+', '-', name.lower()).strip('-')}-{_suffix()}"

    @property
    def service_account(self) -> str:
        """Who runs what names nobody."""
        return "default-editor" if self.multi_user else "pipeline-runner"

    def show_config(self, asked: Item) -> Item:
        """The parameters as the API shows them: not at all if there are none."""
        config = {name: value for name, value in asked.get("runtime_config", {}).items() if value}
        return {"runtime_config": config} if config else {}

    def add_schedule(self, asked: Item, experiment: Item, source: Item) -> Item:
        """Adds a recurring run."""
        key, created = self.new_id(), self.clock.next()
        enabled = asked["mode"] == "ENABLE"
        self.schedules[key] = {
            "recurring_run_id": key,
            **{name: asked[name] for name in ("display_name", "description") if asked.get(name)},
            **source,
            **self.show_config(asked),
            "service_account": asked.get("service_account") or self.service_account,
            "max_concurrency": str(asked["max_concurrency"]),
            "trigger": _show_trigger(asked["trigger"]),
            "mode": "ENABLE" if enabled else "DISABLE",
            "created_at": created,
            "updated_at": created,
            "status": "ENABLED" if enabled else "DISABLED",
            **({"no_catchup": True} if asked.get("no_catchup") else {}),
            "namespace": experiment.get("namespace") or KUBEFLOW,
            "experiment_id": experiment["experiment_id"],
        }
        return self.schedules[key]

    def switch_schedule(self, key: str, enabled: bool) -> None:
        """Enables or disables a recurring run."""
        state = {"mode": "ENABLE", "status": "ENABLED"} if enabled else {"mode": "DISABLE", "status": "DISABLED"}
        self.schedules[key] |= state | {"updated_at": self.clock.next()}

    def fire(self, key: str) -> Run:
        """Makes the next run of a recurring run."""
        schedule = self.schedules[key]
        if schedule["mode"] != "ENABLE":
            raise ValueError(f"recurring run {key} is disabled")
        index = self.fired[key] = self.fired.get(key, 0) + 1
        name = f"{re.sub('[^a-z0-9-]+', '-', schedule['display_name'].lower())}-{key[:5]}-{index}"
        asked = schedule | {"display_name": f"{name}-{hashed(name)}"}
        source = self.resolve_source(schedule)
        check_parameters(source[0], schedule.get("runtime_config", {}).get("parameters", {}))
        return self.add_run(asked, self.experiments[schedule["experiment_id"]], source, recurring_run_id=key)


def _named(name: str, description: str) -> Item:
    return {"display_name": name, "name": name, **({"description": description} if description else {})}


def _suffix() -> str:
    """Five letters and figures of those that Kubernetes takes."""
    return "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))


def _show_trigger(trigger: Item) -> Item:
    periodic = trigger.get("periodic_schedule")
    if not periodic:
        return trigger
    return {"periodic_schedule": periodic | {"interval_second": str(periodic["interval_second"])}}
