"""Both images, really built."""

import shutil
from collections.abc import Iterator

import docker
import pytest
from images.containers import OTHER_VERSION, ROOT, TESTED, Images, build_images


@pytest.fixture(scope="session")
def engine() -> docker.DockerClient:
    return docker.from_env(timeout=600)


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient) -> Images:
    """The images of this source tree."""
    return build_images(TESTED)


@pytest.fixture(scope="session")
def changed(engine: docker.DockerClient, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
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
    changed = build_images(Images("changed"), source)
    yield changed
    for image in changed:
        engine.images.remove(image, force=True)
