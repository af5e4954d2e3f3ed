"""Both images, really built."""

import shutil
import subprocess
from pathlib import Path

import docker
import pytest
from images.containers import BASE, LOCAL_BASE, OTHER_VERSION, ROOT, Images, build_images


@pytest.fixture(scope="session")
def engine() -> docker.DockerClient:
    client = docker.from_env(timeout=600)
    if BASE == LOCAL_BASE and not client.images.list(BASE):
        subprocess.run([Path(__file__).parent / "base.sh", BASE], check=True)
    return client


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient) -> Images:
    """The images of this source tree."""
    return build_images("tested")


@pytest.fixture(scope="session")
def changed(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The images after one line of the source has changed: the version."""
    source = tmp_path_factory.mktemp("changed")
    for entry in ROOT.iterdir():
        if entry.is_dir() and entry.name not in {".git", ".venv", "build", "workspace"}:
            shutil.copytree(entry, source / entry.name)
        elif entry.is_file():
            shutil.copy(entry, source)
    version = source / "kfp_finetune/_version.py"
    before = version.read_text()
    version.write_text(before.replace('VERSION = "', f'VERSION = "{OTHER_VERSION}"  # "', 1))
    assert version.read_text() != before
    return build_images("changed", source)
