"""A training on the cluster of KUBECONFIG: what waiting for it adds, and what following it asks of the API server."""

import io
import json
import os
import statistics
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kubernetes import client

from benchmarks.measure import Figure, in_turns, ratios
from kfp_finetune.cluster.client import BoundedClient, Cluster, connect
from kfp_finetune.cluster.trainer import NODE, trainjob_fields
from kfp_finetune.components.create_volume.spec import VolumeSpec
from kfp_finetune.components.create_volume.volume import create_volume
from kfp_finetune.images import TRAIN_IMAGE
from kfp_finetune.launch.trainjob.following import follow_job
from kfp_finetune.launch.trainjob.jobs import find_job, remove_job
from kfp_finetune.launch.trainjob.lease import hold, now
from kfp_finetune.launch.trainjob.names import JOBSET_LABEL, NODE_LABEL
from kfp_finetune.launch.trainjob.run import run_trainjob
from kfp_finetune.launch.trainjob.settings import JobSettings
from kfp_finetune.launch.trainjob.spec import JobSpec, trainjob

ROUNDS = 4
JOB_SECONDS = 20
FOLLOWED_SECONDS = 240
NOWHERE = {"kfp-finetune.io/benchmark": "no-such-node"}
RUN = "benchmark"


class CountingClient(BoundedClient):
    """Notes when it makes each request."""

    def __init__(self, like: client.ApiClient):
        """Takes the configuration of another client."""
        super().__init__(like.configuration)
        self.times: list[float] = []

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Makes one HTTP request; see `kubernetes.client.ApiClient.request`."""
        self.times.append(time.monotonic())
        return super().request(*args, **kwargs)


def measure(directory: Path) -> list[Figure]:
    """Runs and follows jobs in a namespace of their own.

    Args:
        directory: Where to work.
    """
    with own_namespace() as cluster, redirect_stdout(io.StringIO()):
        return [*_wall_time(cluster, directory), *_requests(cluster)]


@contextmanager
def own_namespace() -> Iterator[Cluster]:
    """A namespace that is deleted in the end, with a claim named data."""
    api = connect().api
    core = client.CoreV1Api(api)
    name = f"kfp-finetune-bench-{uuid.uuid4().hex[:8]}"
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    try:
        create_volume(api, name, VolumeSpec("data", "1Gi", ("ReadWriteMany",)))
        yield Cluster(api, name)
    finally:
        core.delete_namespace(name)


def job_spec(num_nodes: int, seconds: int) -> JobSpec:
    """A job that prints a line a second.

    Args:
        num_nodes: Its pods.
        seconds: That it lasts.
    """
    steps = f"for step in $(seq {seconds}); do echo step $step; sleep 1; done"
    return JobSpec(
        name=f"job-{uuid.uuid4().hex[:8]}",
        runtime="torch-distributed",
        runtime_kind="ClusterTrainingRuntime",
        image=os.environ.get("KFP_FINETUNE_TEST_IMAGE") or TRAIN_IMAGE,
        command=["sh", "-c", steps],
        num_nodes=num_nodes,
        num_procs_per_node=1,
        accelerator="",
        volume="data",
        mount_path="/workspace",
        settings=JobSettings(),
    )


def _wall_time(cluster: Cluster, directory: Path) -> list[Figure]:
    """The step that waits for a job, and kubectl."""

    def step(number: int) -> float:
        spec = job_spec(2, JOB_SECONDS)
        began = time.monotonic()
        run_trainjob(cluster, spec, RUN, lambda line: None)
        return _ended(cluster, spec.name, began)

    def kubectl(number: int) -> float:
        job = trainjob(job_spec(2, JOB_SECONDS), trainjob_fields(cluster), RUN, now())
        name = job["metadata"]["name"]
        file = directory / f"{name}.json"
        file.write_text(json.dumps(job))
        command = ["kubectl", "-n", cluster.namespace]
        began = time.monotonic()
        subprocess.run([*command, "create", "-f", str(file)], check=True, stdout=subprocess.DEVNULL)
        wait = ["wait", "--for=condition=Complete", f"trainjob/{name}", "--timeout=10m"]
        subprocess.run([*command, *wait], check=True, stdout=subprocess.DEVNULL)
        return _ended(cluster, name, began)

    steps, kubectls = in_turns(ROUNDS, step, kubectl)
    ratio, spread = ratios(steps, kubectls)
    more = [one - other for one, other in zip(steps, kubectls, strict=True)]
    length = statistics.median(kubectls)
    return [
        Figure(f"waiting step / kubectl create and wait, {length:.0f} s", f"{ratio:.2f}", "<= 1.05, or ...", spread),
        Figure(
            "... waiting step - kubectl",
            f"{statistics.median(more):.1f} s",
            "<= 15 s",
            f"{min(more):.1f} to {max(more):.1f} s",
        ),
    ]


def _ended(cluster: Cluster, name: str, began: float) -> float:
    """The seconds until now; then removes the job, so that the next one finds the machine as this one did."""
    seconds = time.monotonic() - began
    job = find_job(cluster, name)
    assert job is not None
    remove_job(cluster, job)
    return seconds


def _requests(cluster: Cluster) -> list[Figure]:
    """Requests while jobs are followed: of two nodes that print a line a second, and of nodes that nothing runs on.

    Pods that no machine takes are said to run, all but the first, which alone has a log that is read; so 64 nodes need
    no machine.
    """
    printing = job_spec(2, 2 * FOLLOWED_SECONDS)
    told = {nodes: replace(job_spec(nodes, 1), settings=JobSettings(node_selector=NOWHERE)) for nodes in (2, 64)}
    counts: dict[str, int] = {}
    jobs = {"2 nodes, a line a second": printing, **{f"{nodes} nodes, no log": spec for nodes, spec in told.items()}}
    threads = [
        threading.Thread(target=partial(_follow, cluster, name, spec, counts), daemon=True)
        for name, spec in jobs.items()
    ]
    for thread in threads:
        thread.start()
    for spec in told.values():
        _say_they_run(cluster, spec)
    for thread in threads:
        thread.join()
    bounds = {"64 nodes, no log": f"<= {counts['2 nodes, no log'] * 60 / FOLLOWED_SECONDS:.1f}, as with 2"}
    return [
        Figure(
            f"requests to the API server a minute, {name}",
            f"{counts[name] * 60 / FOLLOWED_SECONDS:.1f}",
            bounds.get(name, ""),
            f"{counts[name]} in {FOLLOWED_SECONDS} s",
        )
        for name in jobs
    ]


def _follow(cluster: Cluster, name: str, spec: JobSpec, counts: dict[str, int]) -> None:
    """Follows a job for a while and notes how many requests that took."""
    counting = CountingClient(cluster.api)
    counted = Cluster(counting, cluster.namespace)
    lease = hold(counted, trainjob(spec, trainjob_fields(counted), RUN, now()), RUN)
    began = time.monotonic()
    follow_job(lease, spec.num_nodes, 2 * FOLLOWED_SECONDS, FOLLOWED_SECONDS, lambda line: None)
    counts[name] = sum(began <= instant < began + FOLLOWED_SECONDS for instant in counting.times)
    job = find_job(cluster, spec.name)
    assert job is not None
    remove_job(cluster, job)


def _say_they_run(cluster: Cluster, spec: JobSpec) -> None:
    """Waits for a job's pods to be made, and writes into the status of all but the first node's that they run."""
    core = client.CoreV1Api(cluster.api)
    pods: list[Any] = []
    while len(pods) < spec.num_nodes:
        time.sleep(0.5)
        pods = core.list_namespaced_pod(cluster.namespace, label_selector=f"{JOBSET_LABEL}={spec.name}").items
    state = {"running": {"startedAt": now()}}
    running = {"name": NODE, "image": spec.image, "imageID": "", "ready": True, "restartCount": 0, "state": state}
    for pod in (pod for pod in pods if pod.metadata.labels[NODE_LABEL] != "0"):
        status = {"status": {"phase": "Running", "containerStatuses": [running]}}
        core.patch_namespaced_pod_status(pod.metadata.name, cluster.namespace, status)
