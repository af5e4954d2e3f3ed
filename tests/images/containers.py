"""How the images are built for tests, and how a strict cluster would run containers of them."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

ROOT = Path(__file__).parents[2]
REGISTRY = "localhost/kfp-finetune-tests"
LOCAL_BASE = f"{REGISTRY}/python:slim"
"""Made by base.sh where no registry is reachable."""

BASE = os.environ.get("BASE") or LOCAL_BASE
OTHER_VERSION = "9.9.9"
NETWORK = "--network=host"
"""How a build reaches the package index; the engine that engine.sh starts has no other network."""
STRICT: dict[str, Any] = {
    "user": "12345:0",
    "read_only": True,
    "tmpfs": {"/tmp": "exec,mode=1777"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "network_mode": "none",
    "hostname": "localhost",
}
"""What OpenShift's and Kubernetes' restricted profiles ask of a pod, and no network besides.

A pod's own name is in its /etc/hosts; a container without network has `localhost` alone there.
"""


@dataclass(frozen=True)
class Images:
    """The names of two images that were built together.

    Args:
        tag: What both are tagged with.
    """

    tag: str

    @property
    def steps(self) -> str:
        return f"{REGISTRY}/kfp-finetune-steps:{self.tag}"

    @property
    def train(self) -> str:
        return f"{REGISTRY}/kfp-finetune-train:{self.tag}"

    def __iter__(self):
        return iter((self.steps, self.train))


def build_images(tag: str, source: Path = ROOT) -> Images:
    """Runs `make images` in a source tree."""
    settings = [f"BASE={BASE}", f"REGISTRY={REGISTRY}", f"TAG={tag}", f"BUILD_FLAGS={NETWORK}"]
    built = subprocess.run(["make", "images", *settings], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return Images(tag)


def build_steps_from_nothing(tag: str) -> str:
    """Builds the steps image as `make images` does, but without any cached layer; returns its name."""
    command = [ROOT / "containers/build.sh", "steps", NETWORK, "--build-arg", f"BASE={BASE}", "--no-cache"]
    environment = os.environ | {"REGISTRY": REGISTRY, "TAG": tag}
    built = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return Images(tag).steps


@dataclass(frozen=True)
class Ended:
    """A container that has ended."""

    status: int
    output: str


def run(engine: docker.DockerClient, image: str, *command: str, **changes: Any) -> Ended:
    """Runs a command in an image under `STRICT`, with changes to it."""
    container = engine.containers.run(image, list(command), detach=True, **{**STRICT, **changes})
    try:
        return Ended(container.wait()["StatusCode"], container.logs().decode())
    finally:
        container.remove()
