"""What both images hold, and what they let nobody do."""

import ast
import gzip
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import docker
import pytest
from images.containers import BASE, BUILD_FLAGS, REGISTRY, ROOT, STRICT, Images, build, run
from pip._internal.models.index import PyPI
from rooms import ROOMS, body_of, imports_of, interfaces

from kfp_finetune._version import VERSION
from kfp_finetune.images import STEPS_IMAGE

MEGABYTE = 10**6
MARKER = "d41f0c55ecre7"
GZIP = b"\x1f\x8b"
PINNED = dict(
    line.lower().replace("_", "-").split("==")
    for file in ("constraints.txt", "containers/scripts/tools.txt")
    for line in (ROOT / file).read_text().splitlines()
    if "==" in line
)
IMPORTS_THAT_ARE_NOT_THERE = """
import ast, importlib.util, pathlib, sys
exec(chr(10).join(sys.argv[2:]))
# What is shared with the steps that have torch may import what they have when they call it.
with_torch = sys.argv[1].split()
names = [name.split(".") for name in sys.modules if name.startswith("kfp_finetune.")]
own = [".".join(name) for name in names if len(name) > 2 and name[2] not in with_torch]
files = [sys.modules[name].__file__ for name in own]
for file in sorted(files):
    for node in ast.walk(ast.parse(pathlib.Path(file).read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in {name.split(".")[0] for name in names}:
            if importlib.util.find_spec(name) is None:
                print(file, name)
print(len(files) > 2)
"""
COMPILED_AT_RUN_TIME = """
from triton.runtime.build import compile_module_from_src
source = '''
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "launcher", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_launcher(void) { return PyModule_Create(&module); }
'''
print(compile_module_from_src(source, "launcher").__name__)
"""
NOT_COMPILED = """
import importlib.util, os, pathlib
modules = sorted(pathlib.Path("/opt/venv").rglob("*.py"))
assert len(modules) > 1000
print(*(module.name for module in modules if not os.path.exists(importlib.util.cache_from_source(module))))
"""
CACHES = """
import getpass, os, pathlib, torch, transformers
from huggingface_hub.constants import HF_HOME
from torch._inductor.runtime.cache_dir_utils import cache_dir
from triton import knobs
for place in pathlib.Path.home(), HF_HOME, cache_dir(), knobs.cache.dir:
    pathlib.Path(place).mkdir(parents=True, exist_ok=True)
    assert os.access(place, os.W_OK), place
print(getpass.getuser())
"""


def layers(engine: docker.DockerClient, image: str) -> list[str]:
    return engine.images.get(image).attrs["RootFS"]["Layers"]


def test_the_steps_image_is_small(engine: docker.DockerClient, images: Images):
    assert engine.images.get(images.steps).attrs["Size"] <= 650 * MEGABYTE
    assert run(engine, images.steps, "python3", "-c", "import torch").status == 1


def test_every_import_of_the_steps_without_torch_is_in_their_image(engine: docker.DockerClient, images: Images):
    components = [(room, component) for room in ROOMS for component in interfaces(room)]
    image_of = {component.name: component.component_spec.implementation.container.image for _, component in components}
    with_torch = " ".join({room.name for room, component in components if image_of[component.name] != STEPS_IMAGE})
    without_torch = [component for _, component in components if image_of[component.name] == STEPS_IMAGE]
    assert len(without_torch) >= 4
    for component in without_torch:
        imports = [ast.unparse(found) for node in body_of(component) for found in imports_of(node)]
        missing = run(engine, images.steps, "python3", "-c", IMPORTS_THAT_ARE_NOT_THERE, with_torch, *imports)
        assert (missing.status, missing.output) == (0, "True\n"), component.name


def test_the_train_image_holds_all_that_the_steps_image_holds(engine: docker.DockerClient, images: Images):
    listed = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    steps, train = (set(run(engine, image, "python3", "-c", listed).output.split()) for image in images)
    assert f"kfp-finetune=={VERSION}" in steps
    assert steps < train


@pytest.mark.parametrize("kind", ["steps", "train"])
def test_the_sbom_lists_every_package_in_its_pinned_version(engine: docker.DockerClient, images: Images, kind: str):
    sbom = json.loads(run(engine, getattr(images, kind), "cat", "/opt/venv/sbom.cdx.json").output)
    listed = {part["name"].lower().replace("_", "-"): part["version"] for part in sbom["components"]}
    assert listed.pop("kfp-finetune") == VERSION
    assert {name: number for name, number in listed.items() if PINNED.get(name) != number} == {}
    assert listed.get("torch") == (version("torch").split("+")[0] if kind == "train" else None)


@pytest.mark.parametrize("kind", ["steps", "train"])
def test_the_labels_say_what_the_image_is(engine: docker.DockerClient, images: Images, kind: str):
    config = engine.images.get(getattr(images, kind)).attrs["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert labels["title"] == f"kfp-finetune-{kind}"
    assert labels["version"] == VERSION
    assert labels["revision"].removesuffix("-dirty") == head.stdout.strip()
    assert labels["licenses"] == "Apache-2.0"
    assert labels["source"].startswith("https://")
    assert config["User"] == "1000:0"


@pytest.mark.parametrize("kind", ["steps", "train"])
def test_nothing_can_be_installed_or_gain_rights(engine: docker.DockerClient, images: Images, kind: str):
    image = getattr(images, kind)

    def shell(command: str, **changes: object) -> str:
        return run(engine, image, "sh", "-c", command, **changes).output.strip()

    assert shell("command -v apt apt-get dpkg pip pip3 uv conda") == ""
    for python in "/opt/venv/bin/python3", "$(readlink -f /opt/venv/bin/python3)":
        for module in "pip", "ensurepip":
            assert f"No module named {module}" in shell(f"{python} -m {module}")
    assert shell("find / -xdev -type f -perm /6000 2>/dev/null") == ""
    status = dict(line.split(":\t") for line in shell("grep -E '^(Cap|NoNewPrivs)' /proc/self/status").splitlines())
    assert status.pop("NoNewPrivs") == "1"
    assert {int(capabilities, 16) for capabilities in status.values()} == {0}
    assert "Read-only file system" in shell("touch /opt/venv/x")
    assert "Permission denied" in shell("touch /opt/venv/x", read_only=False)


@pytest.mark.parametrize("kind", ["steps", "train"])
def test_nothing_of_the_build_stays_in_the_image(engine: docker.DockerClient, images: Images, kind: str):
    left = run(
        engine, getattr(images, kind), "sh", "-c", "ls -A /mnt /root /run/secrets /var/lib/apt/lists 2>/dev/null"
    )
    files = {line for line in left.output.splitlines() if line and not line.endswith(":")}
    assert files <= {".bashrc", ".profile", "auxfiles", "lock", "partial"}
    history = json.dumps(engine.api.history(getattr(images, kind)))
    assert not [word for word in ("PIP_", "http_proxy", "BASE=") if word in history]


@pytest.mark.parametrize("kind", ["steps", "train"])
def test_code_is_compiled_since_a_read_only_image_cannot_later(engine: docker.DockerClient, images: Images, kind: str):
    ended = run(engine, getattr(images, kind), "python3", "-c", NOT_COMPILED)
    assert (ended.status, ended.output.split()) == (0, ["py312_intrinsics.py"] if kind == "train" else [])


@pytest.mark.parametrize("user", ["12345:0", "12345:12345"])
def test_caches_lie_where_any_user_may_write(engine: docker.DockerClient, images: Images, user: str):
    ended = run(engine, images.train, "python3", "-c", CACHES, user=user)
    assert (ended.status, ended.output.split()[-1:]) == (0, ["kfp-finetune"]), ended.output


@pytest.mark.parametrize(
    ("folders", "cache"),
    [({"/tmp": "exec,mode=1777"}, "/tmp"), ({**STRICT["tmpfs"], "/cache": "exec,mode=1777"}, "/cache")],
    ids=["tmp", "another folder"],
)
def test_what_triton_compiles_at_run_time_loads_from_a_folder_that_may_hold_programs(
    engine: docker.DockerClient, images: Images, folders: dict[str, str], cache: str
):
    changes = {"tmpfs": folders, "environment": {"TRITON_CACHE_DIR": cache}}
    ended = run(engine, images.train, "python3", "-c", COMPILED_AT_RUN_TIME, **changes)
    assert (ended.status, ended.output) == (0, "launcher\n")


def test_a_changed_line_changes_one_small_layer(engine: docker.DockerClient, images: Images, changed: Images):
    for before, after in zip(images, changed, strict=True):
        pairs = list(zip(layers(engine, before), layers(engine, after), strict=True))
        assert [old == new for old, new in pairs].count(False) == 1
        (package,) = [step for step in engine.api.history(after) if "package.sh" in step["CreatedBy"]]
        assert 0 < package["Size"] < 8 * MEGABYTE


@pytest.fixture(scope="module")
def from_nothing(engine: docker.DockerClient) -> Iterator[tuple[str, str]]:
    """The steps image built without a cached layer from an index that takes a password, and what that printed."""
    index = urlsplit(os.environ.get("PIP_INDEX_URL") or PyPI.simple_url)
    url = index._replace(netloc=f"{MARKER}:{MARKER}@{index.netloc.rpartition('@')[2]}").geturl()
    command = [str(ROOT / "containers/build.sh"), "steps", "--no-cache", "--build-arg", f"BASE={BASE}"]
    environment = os.environ | {"REGISTRY": REGISTRY, "TAG": "again", "PIP_INDEX_URL": url}
    image = Images("again").steps
    yield image, build(*command, *BUILD_FLAGS.split(), env=environment)
    engine.images.remove(image, force=True)


def test_two_builds_from_nothing_have_the_same_packages_byte_for_byte(
    engine: docker.DockerClient, images: Images, from_nothing: tuple[str, str]
):
    shared = len(layers(engine, BASE)) + 1
    assert layers(engine, from_nothing[0])[:shared] == layers(engine, images.steps)[:shared]


def test_the_index_s_password_is_in_no_layer_and_in_no_line_of_the_build(
    engine: docker.DockerClient, from_nothing: tuple[str, str], tmp_path: Path
):
    image, printed = from_nothing
    with (tmp_path / "image.tar").open("wb") as file:
        file.writelines(engine.images.get(image).save())
    seen = 0
    with tarfile.open(tmp_path / "image.tar") as tar:
        for part in filter(tarfile.TarInfo.isfile, tar):
            content = tar.extractfile(part).read()
            content = gzip.decompress(content) if content.startswith(GZIP) else content
            assert MARKER.encode() not in content, part.name
            seen += len(content)
    (tmp_path / "image.tar").unlink()
    assert seen > 500 * MEGABYTE
    assert MARKER not in printed


def test_both_images_begin_alike_so_that_a_node_pulls_what_they_share_once(engine: docker.DockerClient, images: Images):
    shared = len(layers(engine, BASE)) + 1
    assert layers(engine, images.steps)[:shared] == layers(engine, images.train)[:shared]
