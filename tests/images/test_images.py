"""What both images hold, and what they let nobody do."""

import json
import subprocess
from importlib.metadata import version

import docker
import pytest
from images.containers import BASE, ROOT, Images, build_steps_from_nothing, run

from kfp_finetune._version import VERSION

MEGABYTE = 10**6
PINNED = dict(
    line.lower().replace("_", "-").split("==")
    for file in ("constraints.txt", "containers/scripts/tools.txt")
    for line in (ROOT / file).read_text().splitlines()
    if "==" in line
)
IMPORTS_THAT_ARE_NOT_THERE = """
import ast, importlib.util, pathlib, sys
import kfp_finetune
root = pathlib.Path(kfp_finetune.__file__).parent
for folder in sys.argv[1:]:
    files = sorted((root / folder).rglob("*.py"))
    assert files, folder
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names}:
                if importlib.util.find_spec(name) is None:
                    print(file, name)
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
    rooms = [
        path.parent.name
        for path in (ROOT / "components").glob("*/component.py")
        if "base_image=STEPS_IMAGE" in path.read_text()
    ]
    assert {"create_volume", "delete_volume", "initialize_dataset", "initialize_model"} <= set(rooms)
    folders = [*(f"components/{room}" for room in rooms), "cluster", "launch", "sources", "reports"]
    missing = run(engine, images.steps, "python3", "-c", IMPORTS_THAT_ARE_NOT_THERE, *folders)
    assert (missing.status, missing.output) == (0, "")


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


def test_code_is_compiled_since_a_read_only_image_cannot_later(engine: docker.DockerClient, images: Images):
    script = (
        "import os, kfp_finetune.errors, torch; print(*(os.path.exists(m.__cached__) for m in (torch, kfp_finetune)))"
    )
    assert run(engine, images.train, "python3", "-c", script).output.split()[-2:] == ["True", "True"]


def test_caches_lie_where_any_user_may_write(engine: docker.DockerClient, images: Images):
    ended = run(engine, images.train, "python3", "-c", CACHES)
    assert (ended.status, ended.output.split()[-1:]) == (0, ["kfp-finetune"]), ended.output


def test_what_triton_compiles_at_run_time_compiles(engine: docker.DockerClient, images: Images):
    ended = run(engine, images.train, "python3", "-c", COMPILED_AT_RUN_TIME)
    assert (ended.status, ended.output) == (0, "launcher\n")


def test_a_changed_line_changes_one_small_layer(engine: docker.DockerClient, images: Images, changed: Images):
    for before, after in zip(images, changed, strict=True):
        pairs = list(zip(layers(engine, before), layers(engine, after), strict=True))
        assert [old == new for old, new in pairs].count(False) == 1
        (package,) = [step for step in engine.api.history(after) if "package.sh" in step["CreatedBy"]]
        assert 0 < package["Size"] < 5 * MEGABYTE


def test_two_builds_from_nothing_have_the_same_packages_byte_for_byte(engine: docker.DockerClient, images: Images):
    again = build_steps_from_nothing("again")
    shared = len(layers(engine, BASE)) + 1
    assert layers(engine, again)[:shared] == layers(engine, images.steps)[:shared]


def test_both_images_begin_alike_so_that_a_node_pulls_what_they_share_once(engine: docker.DockerClient, images: Images):
    shared = len(layers(engine, BASE)) + 1
    assert layers(engine, images.steps)[:shared] == layers(engine, images.train)[:shared]
