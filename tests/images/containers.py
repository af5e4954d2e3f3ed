"""How the images are built for tests, and how a strict cluster would run containers of them."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

ROOT = Path(__file__).parents[2]
DEFAULTS = dict(line.split("=", 1) for line in (Path(__file__).parent / "names.env").read_text().splitlines())
REGISTRY, TAG, BASE, BUILD_FLAGS = (
    os.environ.get(name) or DEFAULTS[name] for name in ("REGISTRY", "TAG", "BASE", "BUILD_FLAGS")
)
"""Names as engine.sh gives them to its command; that engine's builds have the host's network or none."""

OTHER_VERSION = "9.9.9"
STRICT: dict[str, Any] = {
    "user": "12345:0",
    "read_only": True,
    "tmpfs": {"/tmp": "noexec,mode=1777"},
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


TESTED = Images(TAG)
"""What `make test-images` leaves in the engine, and `make images` under engine.sh makes or finds."""


def build(*command: str, **changes: Any) -> str:
    """Runs a command that builds, in the source tree unless `cwd` is another; returns what it printed."""
    built = subprocess.run(command, **{"cwd": ROOT, **changes}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    printed = built.stdout.decode()
    assert built.returncode == 0, printed
    return printed


def build_images(images: Images, source: Path = ROOT) -> Images:
    """Runs `make images` in a source tree."""
    names = [f"REGISTRY={REGISTRY}", f"TAG={images.tag}", f"BASE={BASE}", f"BUILD_FLAGS={BUILD_FLAGS}"]
    build("make", "images", *names, cwd=source)
    return images


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
