"""Pods of the train image that run what a step would, on a claim of their own."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client

from kfp_finetune.cluster.client import Cluster
from kfp_finetune.workspace import MOUNT_PATH

TESTS = Path(__file__).parents[1]
SCRIPTS = "/scripts"
USER = 12345
"""As any cluster may choose it; in group 0, as OpenShift has it."""


@dataclass(frozen=True)
class Site:
    """Where a test's pods run.

    Args:
        cluster: With the namespace.
        image: The train image.
        claim: Name of the claim with the workspace.
        account: Service account of the steps.
    """

    cluster: Cluster
    image: str
    claim: str
    account: str

    @property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.cluster.api)


def make_claim(cluster: Cluster, mode: str = "ReadWriteMany") -> str:
    """Make a claim as a user would have one."""
    name = f"claim-{uuid.uuid4().hex[:8]}"
    spec = client.V1PersistentVolumeClaimSpec(
        access_modes=[mode], resources=client.V1VolumeResourceRequirements(requests={"storage": "1Gi"})
    )
    body = client.V1PersistentVolumeClaim(metadata=client.V1ObjectMeta(name=name), spec=spec)
    client.CoreV1Api(cluster.api).create_namespaced_persistent_volume_claim(cluster.namespace, body)
    return name


def start_pod(site: Site, command: Sequence[str], files: Mapping[str, str] | None = None, user: int = USER) -> str:
    """Start a pod with some files in /scripts; return its name, which is the pod's and the files'."""
    name = f"step-{uuid.uuid4().hex[:8]}"
    metadata = client.V1ObjectMeta(name=name)
    site.core.create_namespaced_config_map(
        site.cluster.namespace, client.V1ConfigMap(metadata=metadata, data=dict(files or {}))
    )
    container = client.V1Container(
        name="step",
        image=site.image,
        command=list(command),
        env=[client.V1EnvVar(name="PYTHONPATH", value=SCRIPTS)],
        volume_mounts=[
            client.V1VolumeMount(name="workspace", mount_path=MOUNT_PATH),
            client.V1VolumeMount(name="scripts", mount_path=SCRIPTS),
            client.V1VolumeMount(name="tmp", mount_path="/tmp"),
        ],
        security_context=client.V1SecurityContext(
            run_as_user=user,
            run_as_group=0,
            run_as_non_root=user != 0,
            read_only_root_filesystem=True,
            allow_privilege_escalation=False,
            capabilities=client.V1Capabilities(drop=["ALL"]),
        ),
    )
    volumes = [
        client.V1Volume(
            name="workspace",
            persistent_volume_claim=client.V1PersistentVolumeClaimVolumeSource(claim_name=site.claim),
        ),
        client.V1Volume(name="scripts", config_map=client.V1ConfigMapVolumeSource(name=name)),
        client.V1Volume(name="tmp", empty_dir=client.V1EmptyDirVolumeSource()),
    ]
    spec = client.V1PodSpec(
        containers=[container], volumes=volumes, restart_policy="Never", service_account_name=site.account
    )
    site.core.create_namespaced_pod(site.cluster.namespace, client.V1Pod(metadata=metadata, spec=spec))
    return name


def phase(site: Site, pod: str) -> str:
    return site.core.read_namespaced_pod(pod, site.cluster.namespace).status.phase


def log(site: Site, pod: str, container: str | None = None) -> str:
    response = site.core.read_namespaced_pod_log(
        pod, site.cluster.namespace, container=container, _preload_content=False
    )
    return response.data.decode(errors="replace")


def start_pipeline(site: Site, pipeline: Path, arguments: Mapping[str, Any]) -> str:
    """Start a pod that runs a compiled pipeline under KFP's SubprocessRunner, as the steps' own account."""
    runner = "python -m kfp_finetune.client.local_runner /scripts/pipeline.yaml /tmp/kfp < /scripts/arguments.json"
    files = {"pipeline.yaml": pipeline.read_text(), "arguments.json": json.dumps(dict(arguments))}
    return start_pod(site, ["sh", "-c", runner], files)


def run_to_its_end(site: Site, eventually: Callable[..., object], pod: str, seconds: float = 240) -> str:
    """Wait for a pod's end; return what it printed."""
    eventually(lambda: phase(site, pod) in ("Succeeded", "Failed"), seconds)
    return log(site, pod)
