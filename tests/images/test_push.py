"""`make push` to a registry."""

import io
import json
import re
import shutil
import subprocess
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from images.containers import ROOT

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
TAG = "0.0.1"


def registry_program(folder: Path) -> str:
    """The registry of Debian or Ubuntu, unpacked but not installed: a package's own would start as a service."""
    if found := shutil.which("docker-registry"):
        return found
    if not shutil.which("apt-get"):
        pytest.skip("no docker-registry here, and no apt-get to have it from")
    subprocess.run(["apt-get", "download", "-qq", "docker-registry"], cwd=folder, check=True)
    (package,) = folder.glob("docker-registry_*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True)
    return str(folder / "usr/bin/docker-registry")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The address of a registry on this machine, which engines reach without TLS."""
    settings = {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}},
        "http": {"addr": "127.0.0.1:0"},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    command = [registry_program(tmp_path), "serve", str(tmp_path / "config.yaml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"listening on (127\.0\.0\.1:\d+)", line):
                break
        else:
            pytest.fail("".join(said))
        # A pipe that nobody empties would stop the registry.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield found[1]
        process.kill()


def make_image(engine: docker.DockerClient, name: str) -> str:
    """An image with one small file; returns its id."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name.replace("/", "-")))
    repository, _, tag = name.rpartition(":")
    engine.api.import_image_from_data(layer.getvalue(), repository=repository, tag=tag)
    return engine.images.get(name).id


def test_both_images_arrive_at_the_registry_under_their_names(engine: docker.DockerClient, registry: str):
    names = {kind: f"{registry}/ml/kfp-finetune-{kind}:{TAG}" for kind in ("steps", "train")}
    made = {kind: make_image(engine, name) for kind, name in names.items()}
    command = ["make", "push", f"REGISTRY={registry}/ml", f"TAG={TAG}"]
    pushed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    for name in names.values():
        engine.images.remove(name)
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr
    arrived = {}
    for kind in made:
        url = f"http://{registry}/v2/ml/kfp-finetune-{kind}/manifests/{TAG}"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": MANIFEST})) as answer:
            arrived[kind] = json.load(answer)["config"]["digest"]
    assert arrived == made
    assert made["steps"] != made["train"]


def test_what_cannot_be_pushed_fails_before_the_second_image(engine: docker.DockerClient, registry: str):
    command = ["make", "push", f"REGISTRY={registry}/ml", "TAG=never-built"]
    pushed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert pushed.returncode != 0
    assert "kfp-finetune-steps" in pushed.stdout + pushed.stderr
    assert "kfp-finetune-train" not in pushed.stdout + pushed.stderr
