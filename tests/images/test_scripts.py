"""The scripts that choose an engine, name, build and publish; programs that record stand in for the engines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from images.containers import DEFAULTS, ROOT

from kfp_finetune._version import VERSION


def call(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """Runs a command without the settings of the images that this process may have."""
    kept = {name: value for name, value in os.environ.items() if name not in {"ENGINE", "PIP_CERT", *DEFAULTS}}
    return subprocess.run(command, cwd=cwd, env=kept | environment, capture_output=True, text=True)


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A folder for programs that stand in front of the real ones."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def path_of(stand_ins: Path) -> str:
    return f"{stand_ins}:{os.environ['PATH']}"


def write_engine(path: Path, answers: bool = True) -> Path:
    """A program whose `info` answers or not, and that writes down what else it is asked."""
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = info ]; then {"true" if answers else "false"}; exit; fi\n'
        'printf "%s\\n" "$@" >>"$0.asked"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("docker", "podman", "chosen"), [(True, True, "docker"), (True, False, "docker"), (False, True, "podman")]
)
@pytest.mark.parametrize("command", [("containers/build.sh", "steps"), ("containers/push.sh",)])
def test_the_first_engine_that_answers_builds_and_pushes(
    stand_ins: Path, docker: bool, podman: bool, chosen: str, command: tuple[str, ...]
):
    for name, answers in {"docker": docker, "podman": podman}.items():
        write_engine(stand_ins / name, answers)
    done = call(*command, PATH=path_of(stand_ins))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in stand_ins.glob("*.asked")] == [f"{chosen}.asked"]


@pytest.mark.parametrize("command", [("containers/build.sh", "steps"), ("containers/push.sh",)])
def test_without_an_engine_both_are_named_and_nothing_is_built_or_pushed(stand_ins: Path, command: tuple[str, ...]):
    for name in "docker", "podman":
        write_engine(stand_ins / name, answers=False)
    done = call(*command, PATH=path_of(stand_ins))
    assert done.returncode == 1
    assert "neither Docker nor Podman answers" in done.stderr
    assert not list(stand_ins.glob("*.asked"))


def test_an_engine_that_is_named_is_taken_without_asking_the_others(stand_ins: Path):
    for name in "docker", "podman":
        write_engine(stand_ins / name, answers=False)
    assert (
        call("containers/push.sh", PATH=path_of(stand_ins), ENGINE=str(write_engine(stand_ins / "mine"))).stderr == ""
    )
    assert (stand_ins / "mine.asked").read_text().count("push\n") == 2


def test_certificates_may_lie_on_a_relative_path_and_the_index_stays_out_of_the_command(
    stand_ins: Path, tmp_path: Path
):
    engine = write_engine(stand_ins / "mine")
    (tmp_path / "certificates.pem").touch()
    settings = {
        "ENGINE": str(engine),
        "PIP_CERT": "certificates.pem",
        "PIP_INDEX_URL": "https://me:secret@index/simple",
    }
    done = call(str(ROOT / "containers/build.sh"), "steps", cwd=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    asked = (stand_ins / "mine.asked").read_text()
    assert f"id=certificates,src={tmp_path}/certificates.pem\n" in asked
    assert "id=index,env=PIP_INDEX_URL\n" in asked
    assert "secret@" not in asked


def test_certificates_that_are_not_there_are_named_before_anything_is_built(stand_ins: Path, tmp_path: Path):
    engine = write_engine(stand_ins / "mine")
    done = call("containers/build.sh", "steps", ENGINE=str(engine), PIP_CERT="no/such.pem")
    assert done.returncode == 1
    assert "no/such.pem" in done.stderr
    assert not (stand_ins / "mine.asked").exists()


def compile_modules(*modules: Path) -> subprocess.CompletedProcess:
    script = str(ROOT / "containers/scripts/bytecode.py")
    given = "\n".join(map(str, modules))
    return subprocess.run([sys.executable, "-I", script], input=given, capture_output=True, text=True)


def test_a_module_that_does_not_compile_fails_the_build_unless_it_is_for_another_python(tmp_path: Path):
    good, bad, other = (tmp_path / name for name in ("good.py", "bad.py", "py399_new.py"))
    good.write_text("x = 1\n")
    for module in bad, other:
        module.write_text("def f[:\n")
    accepted = compile_modules(good, other)
    assert (accepted.returncode, accepted.stdout.strip()) == (0, f"{other} is for another Python and stays uncompiled.")
    assert [path.name.split(".")[0] for path in (tmp_path / "__pycache__").iterdir()] == ["good"]
    assert compile_modules(good, bad).returncode == 1
    assert compile_modules(tmp_path / "gone.py").returncode == 1


def names(kind: str, name: str, owner: str = "Someone") -> subprocess.CompletedProcess:
    given = {"GITHUB_REF_TYPE": kind, "GITHUB_REF_NAME": name, "GITHUB_SHA": "abc", "GITHUB_REPOSITORY_OWNER": owner}
    return call(".github/workflows/names.sh", **given)


def test_the_workflow_publishes_under_the_version_that_compiled_pipelines_name():
    assert names("tag", f"v{VERSION}").stdout == f"REGISTRY=ghcr.io/someone\nTAG={VERSION}\n"
    assert names("branch", "main").stdout == "REGISTRY=ghcr.io/someone\nTAG=abc\n"
    for other in f"v{VERSION}1", VERSION, "v9.9.9":
        refused = names("tag", other)
        assert (refused.returncode, refused.stdout) == (1, ""), other
        assert f"The tag is {other}, but this is version {VERSION}" in refused.stderr


def test_only_the_tag_s_job_may_write_packages_and_every_action_is_pinned():
    workflow = yaml.safe_load((ROOT / ".github/workflows/images.yaml").read_text())
    jobs = workflow["jobs"]
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert jobs["publish"]["if"] == "github.ref_type == 'tag'"
    assert jobs["publish"]["needs"] == "test"
    actions = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert actions
    for action in actions:
        assert len(action.partition("@")[2]) == 40, action


def test_tests_of_images_say_at_once_that_their_engine_ended(tmp_path: Path):
    # A socket's path has 108 characters at most, so that a Docker started below such a folder ends.
    if os.geteuid() != 0:
        pytest.skip("an engine is only started by root")
    root = tmp_path / ("x" * 120)
    root.mkdir()
    settings = {"DOCKER_HOST": f"unix://{tmp_path}/nobody", "ENGINE_ROOT": str(root)}
    done = call("tests/images/engine.sh", "true", **settings)
    assert done.returncode == 1
    assert "The engine ended at its start" in done.stderr
    assert not list(root.iterdir())
