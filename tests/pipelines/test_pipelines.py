"""Every compiled pipeline: what the KFP UI shows of it, and what the server is told."""

from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_finetune._version import VERSION, VERSION_VARIABLE
from kfp_finetune.client.compile import PIPELINES, stale_pipelines
from kfp_finetune.client.parameters import read_parameters
from kfp_finetune.images import STEPS_IMAGE, TRAIN_IMAGE
from kfp_finetune.pipelines.parallel import MAX_PARALLEL

ROOT = Path(__file__).parents[2] / "pipelines"
FETCHING = {"initialize-dataset", "initialize-model"}
TEACHER = {"distillation": {"initialize-model-2"}}
"""What a pipeline fetches beside these."""

LOADING = {
    "torchtune_finetune": {"plan", "torchtune-train", "evaluate-model", "export-model"},
    "preference_tuning": {"plan-preferences", "torchtune-train", "evaluate-model", "export-model"},
    "distillation": {"plan-distillation", "torchtune-train", "evaluate-model", "export-model"},
    "transformers_finetune": {"plan", "transformers-train", "export-model"},
    "sweep": {"plan-sweep", "run-trial", "evaluate-trial", "choose-best", "evaluate-model", "export-model"},
}
"""The steps of each pipeline that load a model."""

WITH_GPUS = {
    "torchtune_finetune": {"torchtune-train", "evaluate-model"},
    "preference_tuning": {"torchtune-train", "evaluate-model"},
    "distillation": {"torchtune-train", "evaluate-model"},
    "transformers_finetune": {"transformers-train"},
    "sweep": {"run-trial", "evaluate-trial", "evaluate-model"},
}
REQUIRED = {
    "torchtune_finetune": {"model", "dataset"},
    "preference_tuning": {"model", "dataset"},
    "distillation": {"model", "teacher", "dataset"},
    "transformers_finetune": {"model", "dataset", "transformer_type"},
    "sweep": {"model", "dataset", "search"},
}
MOST_PARAMETERS = {"sweep": 51, "distillation": 49}


@pytest.fixture(params=PIPELINES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def path(name: str) -> Path:
    return ROOT / name / "pipeline.yaml"


@pytest.fixture
def spec(path: Path) -> pipeline_spec_pb2.PipelineSpec:
    document = next(iter(yaml.safe_load_all(path.read_text())))
    return json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())


@pytest.fixture
def executors(path: Path) -> dict[str, kubernetes_executor_config_pb2.KubernetesExecutorConfig]:
    _, platform = yaml.safe_load_all(path.read_text())
    configs = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        name.removeprefix("exec-"): json_format.ParseDict(
            config, kubernetes_executor_config_pb2.KubernetesExecutorConfig()
        )
        for name, config in configs.items()
    }


def tasks(spec: pipeline_spec_pb2.PipelineSpec) -> dict[str, pipeline_spec_pb2.PipelineTaskSpec]:
    dags = [spec.root.dag, *(component.dag for component in spec.components.values())]
    return {name: task for dag in dags for name, task in dag.tasks.items()}


def test_the_committed_yaml_is_what_the_source_compiles_to():
    assert stale_pipelines(ROOT) == []


def test_the_form_has_a_description_and_a_default_for_every_parameter(name: str, path: Path):
    parameters = read_parameters(path)
    assert {name for name, parameter in parameters.items() if parameter.required} == REQUIRED[name]
    assert len(parameters) <= MOST_PARAMETERS.get(name, 47)
    for parameter in parameters.values():
        assert len(parameter.description) > 15, parameter.name


def test_no_name_that_fails_the_driver_is_empty_by_default(path: Path):
    """An empty claim name fails a step's driver; see the notes on KFP in ARCHITECTURE.md."""
    assert read_parameters(path)["volume"].default


def test_the_volume_is_mounted_where_it_is_needed_and_nowhere_else(name: str, executors: dict):
    mounted = {name for name, config in executors.items() if config.pvc_mount}
    assert mounted == FETCHING | TEACHER.get(name, set()) | LOADING[name]
    for step in mounted:
        (mount,) = executors[step].pvc_mount
        assert mount.mount_path == "/workspace"


def test_what_uses_gpus_has_shared_memory_for_its_processes(name: str, executors: dict):
    mounts = {
        step: [(mount.medium, mount.mount_path) for mount in executors[step].empty_dir_mounts] for step in executors
    }
    assert {step for step, found in mounts.items() if found} == WITH_GPUS[name]
    assert all(found == [("Memory", "/dev/shm")] for found in mounts.values() if found)


def test_no_step_is_cached(name: str, spec: pipeline_spec_pb2.PipelineSpec):
    wanted = FETCHING | TEACHER.get(name, set()) | LOADING[name] | {"create-volume"}
    steps = {step: task for step, task in tasks(spec).items() if step in wanted}
    assert steps.keys() == wanted
    assert not [step for step, task in steps.items() if task.caching_options.enable_cache]


def test_gpus_are_asked_for_by_the_steps_that_use_them(name: str, spec: pipeline_spec_pb2.PipelineSpec):
    deployment = json_format.MessageToDict(spec.deployment_spec)
    with_gpus = {
        step.removeprefix("exec-")
        for step, executor in deployment["executors"].items()
        if "accelerator" in executor["container"].get("resources", {})
    }
    assert with_gpus == WITH_GPUS[name]
    for group, component in spec.components.items():
        if component.HasField("dag"):
            known = set(component.input_definitions.parameters)
            used = {
                parameter.component_input_parameter
                for task in component.dag.tasks.values()
                for parameter in task.inputs.parameters.values()
                if parameter.component_input_parameter
            }
            assert used <= known, group


def test_one_parameter_is_the_image_of_the_steps_that_load_a_model(
    name: str, path: Path, spec: pipeline_spec_pb2.PipelineSpec
):
    executors = json_format.MessageToDict(spec.deployment_spec)["executors"]
    images = {step.removeprefix("exec-"): executor["container"]["image"] for step, executor in executors.items()}
    placeholder = "{{$.inputs.parameters['pipelinechannel--train_image']}}"
    of_the_run = {step for step, image in images.items() if image == placeholder}
    assert of_the_run == LOADING[name]
    for step in of_the_run:
        inputs = tasks(spec)[step].inputs.parameters
        assert inputs["pipelinechannel--train_image"].component_input_parameter.endswith("train_image"), step
    assert read_parameters(path)["train_image"].default == TRAIN_IMAGE
    assert {image for image in images.values() if image != placeholder} == {STEPS_IMAGE}


def test_every_step_is_told_the_version_that_it_was_compiled_from(spec: pipeline_spec_pb2.PipelineSpec):
    for step, executor in json_format.MessageToDict(spec.deployment_spec)["executors"].items():
        assert {"name": VERSION_VARIABLE, "value": VERSION} in executor["container"]["env"], step


def test_the_volume_outlives_a_failure_unless_told_otherwise(path: Path, spec: pipeline_spec_pb2.PipelineSpec):
    cleanup = tasks(spec)["clean-up"]
    assert (
        cleanup.trigger_policy.strategy == pipeline_spec_pb2.PipelineTaskSpec.TriggerPolicy.ALL_UPSTREAM_TASKS_COMPLETED
    )
    assert read_parameters(path)["keep_volume"].default is True


def test_a_sweep_chooses_among_the_trials_that_came_to_an_end_whatever_became_of_the_others():
    """Trials at once are bounded, and the choice waits for the loop without needing it to succeed."""
    document = next(iter(yaml.safe_load_all((ROOT / "sweep" / "pipeline.yaml").read_text())))
    (dag,) = (
        component["dag"]
        for component in document["components"].values()
        if "choose-best" in component.get("dag", {}).get("tasks", {})
    )
    (loop,) = (name for name, task in dag["tasks"].items() if "parameterIterator" in task)
    assert dag["tasks"][loop]["iteratorPolicy"] == {"parallelismLimit": MAX_PARALLEL}
    choice = dag["tasks"]["choose-best"]
    assert loop in choice["dependentTasks"]
    assert choice["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    after = {name for name, task in dag["tasks"].items() if "choose-best" in task.get("dependentTasks", [])}
    assert after == {"evaluate-model", "export-model"}
    assert not [name for name in after if "triggerPolicy" in dag["tasks"][name]]
