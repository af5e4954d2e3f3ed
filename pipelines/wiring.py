"""What every pipeline does with its steps."""

from collections.abc import Iterable
from typing import Any

from kfp import kubernetes

from kfp_finetune._version import VERSION, VERSION_VARIABLE
from kfp_finetune.workspace import MOUNT_PATH

HF_KEYS = {"token": "HF_TOKEN", "endpoint": "HF_ENDPOINT"}
S3_KEYS = {
    name: name
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL_S3",
        "AWS_REGION",
    )
}
"""Keys of the two Secrets, and the environment variable that each becomes."""


def mount_volume(steps: Iterable[Any], volume: Any) -> None:
    """Mounts the volume in each step."""
    for step in steps:
        kubernetes.mount_pvc(step, pvc_name=volume, mount_path=MOUNT_PATH)


def give_secrets(steps: Iterable[Any], hf_secret: Any, s3_secret: Any) -> None:
    """Gives each step the credentials of the Hub and of S3, of which either may be absent."""
    for step in steps:
        kubernetes.use_secret_as_env(step, hf_secret, HF_KEYS, optional=True)
        kubernetes.use_secret_as_env(step, s3_secret, S3_KEYS, optional=True)


def ask_for_gpus(step: Any, accelerator: Any, count: Any) -> None:
    """Asks for GPUs, unless the accelerator's name is empty."""
    step.set_accelerator_type(accelerator).set_accelerator_limit(count)
    # kfp 2.17 leaves the parameters of these setters out of the inputs of the groups around a task.
    step.register_pipeline_channels([channel for channel in (accelerator, count) if not isinstance(channel, int)])


def share_memory(steps: Iterable[Any]) -> None:
    """Gives the processes of each step more than the 64 MB of /dev/shm that a container has, for NCCL."""
    for step in steps:
        kubernetes.empty_dir_mount(step, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory")


def settle(steps: Iterable[Any], train_image: Any, loading: Iterable[Any]) -> None:
    """Sets what holds for every step: no cache, and the version of this library that it was compiled from.

    Args:
        steps: All of them.
        train_image: Image of the steps that load a model.
        loading: Those.
    """
    for step in loading:
        step.set_container_image(train_image)
    for step in steps:
        step.set_caching_options(False)
        step.set_env_variable(VERSION_VARIABLE, VERSION)
