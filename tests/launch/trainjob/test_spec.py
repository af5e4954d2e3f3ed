"""The TrainJob that is asked for, in the words of each version of Kubeflow Trainer, held against its schema."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kfp_finetune.errors import UserError
from kfp_finetune.launch.trainjob.names import HEARTBEAT_PREFIX, SPEC_HASH
from kfp_finetune.launch.trainjob.settings import JobSettings
from kfp_finetune.launch.trainjob.spec import JobSpec, trainjob

NOW = "2026-01-01T00:00:00Z"
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "schemas").glob("*.json")}
FIELDS = {version: frozenset(schema["properties"]) for version, schema in SCHEMAS.items()}
VERSIONS = sorted(SCHEMAS)

NEWER = {
    "image_pull_secrets": ["registry"],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
            }
        }
    },
    "labels": {"team": "a"},
    "annotations": {"example.com/note": "a note"},
}
"""Settings that Kubeflow Trainer 2.0 has no place for."""

SPEC = JobSpec(
    name="finetune-0123",
    runtime="torch-distributed",
    runtime_kind="ClusterTrainingRuntime",
    image="train:1",
    command=["python", "-m", "node"],
    num_nodes=2,
    num_procs_per_node=4,
    accelerator="nvidia.com/gpu",
    volume="data",
    mount_path="/workspace",
    settings=JobSettings(
        cpu="8",
        memory="64Gi",
        shared_memory="16Gi",
        service_account="default-editor",
        node_selector={"zone": "a"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        queue="team-a",
        env={"NCCL_DEBUG": "INFO"},
        env_from_secrets={"WANDB_API_KEY": "wandb/API_KEY"},
    ),
    env=[
        {"name": "NCCL_DEBUG", "value": "WARN"},
        {"name": "PLAIN", "value": "v"},
        {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ],
    volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "other"}}],
    volume_mounts=[{"name": "data", "mountPath": "/data", "subPath": "a", "readOnly": True}],
)
WITH_NEWER = replace(SPEC, settings=replace(SPEC.settings, **NEWER))


def job(version: str, spec: JobSpec = SPEC, run: str = "run-1", now: str = NOW) -> dict[str, Any]:
    return trainjob(spec, FIELDS[version], run, now)


def pod(version: str, spec: JobSpec = SPEC) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metadata and the spec by which the runtime's pods are changed."""
    body = job(version, spec)["spec"]
    if version == "2.0":
        (override,) = body["podSpecOverrides"]
        assert override.pop("targetJobs") == [{"name": "node"}]
        return {}, override
    if version == "2.1":
        (override,) = body["podTemplateOverrides"]
        assert override["targetJobs"] == [{"name": "node"}]
        return override["metadata"], override["spec"]
    (patch,) = body["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == "node"
    template = replicated["template"]["spec"]["template"]
    return template["metadata"], template["spec"]


def faults(version: str, body: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(SCHEMAS[version]).iter_errors(body)]


@pytest.mark.parametrize(
    ("version", "spec"),
    [
        ("2.0", SPEC),
        ("2.1", WITH_NEWER),
        ("2.2", WITH_NEWER),
        *((version, replace(SPEC, settings=JobSettings())) for version in VERSIONS),
    ],
)
def test_each_version_s_schema_knows_every_field(version: str, spec: JobSpec) -> None:
    assert faults(version, job(version, spec)["spec"]) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schema_would_find_an_unknown_field(version: str) -> None:
    body = job(version)["spec"]
    named = next(name for name in ("runtimePatches", "podTemplateOverrides", "podSpecOverrides") if name in body)
    body["trainer"]["gpus"] = 1
    body[named][0]["unknown"] = {}
    assert len(faults(version, body)) == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pods_get_what_was_asked_for(version: str) -> None:
    metadata, spec = pod(version, WITH_NEWER if version != "2.0" else SPEC)
    (container,) = spec["containers"]
    assert container["name"] == "node"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert set(mounts) == {"/workspace", "/dev/shm", "/tmp", "/data"}
    assert len(volumes) == len(spec["volumes"]) == 4
    assert volumes[mounts["/workspace"]]["persistentVolumeClaim"] == {"claimName": "data"}
    assert volumes[mounts["/data"]]["persistentVolumeClaim"] == {"claimName": "other"}
    assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert (spec["serviceAccountName"], spec["nodeSelector"]) == ("default-editor", {"zone": "a"})
    assert spec["tolerations"] == SPEC.settings.tolerations
    if version != "2.0":
        assert spec["imagePullSecrets"] == [{"name": "registry"}] and spec["affinity"] == NEWER["affinity"]
        assert metadata["labels"].items() >= {"team": "a", "sidecar.istio.io/inject": "false"}.items()
        assert metadata["annotations"] == {"example.com/note": "a note", "sidecar.istio.io/inject": "false"}
    assert ("securityContext" in container) == (version == "2.2")


@pytest.mark.parametrize("name", NEWER)
def test_a_setting_that_the_oldest_version_cannot_carry_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=rf"trainjob\.{name}: given with Kubeflow Trainer 2\.0"):
        job("2.0", replace(SPEC, settings=JobSettings(**{name: NEWER[name]})))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_trainer_gets_image_command_nodes_and_resources(version: str) -> None:
    body = job(version)["spec"]
    trainer = body["trainer"]
    amounts = {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "4"}
    assert trainer["resourcesPerNode"] == {"requests": amounts, "limits": amounts}
    assert (trainer["image"], trainer["command"]) == ("train:1", ["python", "-m", "node"])
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert body["runtimeRef"]["name"] == "torch-distributed"
    assert body.get("activeDeadlineSeconds") == (168 * 3600 if version == "2.2" else None)
    cpus = job(version, replace(SPEC, accelerator=""))["spec"]["trainer"]["resourcesPerNode"]["limits"]
    assert cpus == {"cpu": "8", "memory": "64Gi"}


def test_the_user_s_own_variables_win_and_secrets_are_named_and_never_read() -> None:
    trainer = job("2.2")["spec"]["trainer"]
    variables = {variable.pop("name"): variable for variable in trainer["env"]}
    assert variables == {
        "NCCL_DEBUG": {"value": "INFO"},
        "PLAIN": {"value": "v"},
        "HOST": {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        "WANDB_API_KEY": {"valueFrom": {"secretKeyRef": {"name": "wandb", "key": "API_KEY"}}},
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_task_mounts_at_one_of_our_places_takes_it(version: str) -> None:
    own = {"name": "shm", "emptyDir": {"medium": "Memory"}}
    spec = replace(SPEC, volumes=[own], volume_mounts=[{"name": "shm", "mountPath": "/dev/shm"}])
    _, found = pod(version, spec)
    (container,) = found["containers"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert sorted(mounts) == ["/dev/shm", "/tmp", "/workspace"]
    assert own in found["volumes"] and len(found["volumes"]) == 3


def test_a_claim_that_is_called_workspace_or_tmp_is_not_taken_for_ours() -> None:
    names = ["workspace", "shared-memory", "tmp"]
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    mounts = [{"name": name, "mountPath": f"/{name}-of-mine"} for name in names]
    _, found = pod("2.2", replace(SPEC, volumes=volumes, volume_mounts=mounts))
    assert len({volume["name"] for volume in found["volumes"]}) == len(found["volumes"]) == 6


def test_the_job_is_labelled_as_ours_its_run_s_and_its_queue_s() -> None:
    metadata = job("2.2")["metadata"]
    assert metadata["labels"] == {
        "app.kubernetes.io/managed-by": "kfp-finetune",
        "run.kfp-finetune.io/run-1": "holds",
        "kueue.x-k8s.io/queue-name": "team-a",
    }
    assert metadata["annotations"][f"{HEARTBEAT_PREFIX}run-1"] == NOW


def hash_of(spec: JobSpec, **options: str) -> str:
    return job("2.2", spec, **options)["metadata"]["annotations"][SPEC_HASH]


def test_the_same_work_has_the_same_hash_whoever_asks_and_however_long_he_waits() -> None:
    patient = replace(SPEC, settings=replace(SPEC.settings, timeout_hours=1.0, start_timeout_minutes=1, max_attempts=9))
    same = replace(SPEC, settings=replace(SPEC.settings, env=dict(SPEC.settings.env)))
    assert {hash_of(SPEC), hash_of(SPEC, run="run-2", now="2026-02-02T00:00:00Z"), hash_of(patient), hash_of(same)} == {
        hash_of(SPEC)
    }


@pytest.mark.parametrize(
    "change",
    [
        {"num_nodes": 3},
        {"num_procs_per_node": 8},
        {"image": "train:2"},
        {"runtime": "kfp-finetune"},
        {"volume": "other"},
        {"accelerator": "amd.com/gpu"},
        {"settings": replace(SPEC.settings, memory="65Gi")},
        {"settings": replace(SPEC.settings, shared_memory="17Gi")},
        {"settings": replace(SPEC.settings, node_selector={})},
        {"settings": replace(SPEC.settings, env_from_secrets={})},
    ],
    ids=str,
)
def test_other_resources_have_another_hash(change: dict[str, Any]) -> None:
    assert hash_of(replace(SPEC, **change)) != hash_of(SPEC)
