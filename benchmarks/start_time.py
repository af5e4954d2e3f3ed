"""From the submission of a training to its first step on the cluster of KUBECONFIG, with all on the volume already."""

import io
import re
import statistics
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from kubernetes import client

from benchmarks.cluster_time import RUN, job_spec, own_namespace
from benchmarks.measure import Figure
from kfp_finetune.cluster.client import Cluster
from kfp_finetune.launch.trainjob.names import JOBSET_LABEL
from kfp_finetune.launch.trainjob.run import run_trainjob
from kfp_finetune.training.start import Start, parse_start

ROUNDS = 3
CLAIM = "data"

PREPARE = """
import tempfile
from pathlib import Path
from kfp_finetune.client.demo.docstrings import write_dataset
from kfp_finetune.client.demo.tiny_model import reference_texts, write_base_model
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.components.torchtune_train.planning import make_plan

folder = Path(tempfile.mkdtemp())
write_dataset(folder / "rows")
write_base_model(folder / "base", reference_texts(folder / "rows" / "train.jsonl"), steps=1)
data = initialize_dataset(str(folder / "rows"), "/workspace")
base = initialize_model(str(folder / "base"), "/workspace")
for seed in range({rounds}):
    settings = {{"dtype": "fp32", "held_out": "test", "advanced": {{"seed": seed, "max_steps_per_epoch": 3}}}}
    print("key", make_plan(data, base, "bench", settings, "/workspace").plan.key, flush=True)
"""


@dataclass(frozen=True)
class Begun:
    """One training's way to its first step, in seconds.

    Args:
        whole: From the submission until the first step was told.
        pod: Until its container started: controllers, scheduling, image and volume.
        told: What the training's first process told of its own start.
    """

    whole: float
    pod: float
    told: Start


def measure(directory: Path) -> list[Figure]:
    """Trains a small model for three steps, several times, in a namespace of its own.

    Args:
        directory: Where to work.
    """
    with own_namespace() as cluster, redirect_stdout(io.StringIO()):
        begun = [_begin(cluster, key) for key in _prepare(cluster)]
    parts = {
        "submission to first step, a small model, all on the volume": [one.whole for one in begun],
        "... controllers, scheduling, image, volume": [one.pod for one in begun],
        "... launcher and torchrun": [
            one.whole - one.pod - one.told.imports - one.told.load - one.told.first_step for one in begun
        ],
        "... imports": [one.told.imports for one in begun],
        "... model and data": [one.told.load for one in begun],
        "... first step": [one.told.first_step for one in begun],
    }
    return [_figure(name, seconds) for name, seconds in parts.items()]


def _figure(name: str, seconds: Sequence[float]) -> Figure:
    return Figure(name, f"{statistics.median(seconds):.1f} s", "", f"{min(seconds):.1f} to {max(seconds):.1f} s")


def _prepare(cluster: Cluster) -> list[str]:
    """Plans the trainings in a pod; returns their keys."""
    core, name = client.CoreV1Api(cluster.api), "prepare"
    container = client.V1Container(
        name=name,
        image=job_spec(1, 1).image,
        command=["python", "-c", PREPARE.format(rounds=ROUNDS)],
        volume_mounts=[client.V1VolumeMount(name="workspace", mount_path="/workspace")],
    )
    claim = client.V1PersistentVolumeClaimVolumeSource(claim_name=CLAIM)
    spec = client.V1PodSpec(
        containers=[container],
        volumes=[client.V1Volume(name="workspace", persistent_volume_claim=claim)],
        restart_policy="Never",
    )
    core.create_namespaced_pod(cluster.namespace, client.V1Pod(metadata=client.V1ObjectMeta(name=name), spec=spec))
    while (phase := core.read_namespaced_pod(name, cluster.namespace).status.phase) not in ("Succeeded", "Failed"):
        time.sleep(1)
    log = core.read_namespaced_pod_log(name, cluster.namespace)
    if phase == "Failed":
        raise RuntimeError(f"the trainings could not be planned:\n{log}")
    return re.findall(r"^key (\w+)$", log, re.MULTILINE)


def _begin(cluster: Cluster, key: str) -> Begun:
    command = ["python", "-m", "kfp_finetune.components.torchtune_train.node", "--training", key]
    command += ["--num-procs", "1", "--workspace", "/workspace"]
    spec = replace(job_spec(1, 1), name=f"finetune-{key}", command=command)
    began, submitted = time.monotonic(), datetime.now(UTC)
    found: list[Begun] = []

    def read(line: str) -> None:
        if told := parse_start(line):
            whole = time.monotonic() - began
            found.append(Begun(whole, (_container_started(cluster, spec.name) - submitted).total_seconds(), told))

    run_trainjob(cluster, spec, RUN, read)
    return found[0]


def _container_started(cluster: Cluster, job: str) -> datetime:
    core = client.CoreV1Api(cluster.api)
    (pod,) = core.list_namespaced_pod(cluster.namespace, label_selector=f"{JOBSET_LABEL}={job}").items
    return pod.status.container_statuses[0].state.running.started_at
