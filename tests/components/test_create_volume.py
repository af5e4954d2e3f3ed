"""What create_volume and delete_volume refuse or skip before any call to a cluster."""

import importlib

import pytest
import urllib3
from kubernetes import client

from kfp_finetune.components.create_volume.sharing import share
from kfp_finetune.components.create_volume.spec import VolumeSpec, check_spec
from kfp_finetune.components.create_volume.volume import create_volume, ensure_volume
from kfp_finetune.components.delete_volume.volume import delete_volume, remove_volume
from kfp_finetune.errors import UserError
from kfp_finetune.images import STEPS_IMAGE

SETTINGS = client.Configuration(host="http://127.0.0.1:9")
SETTINGS.retries = urllib3.Retry(0)
NO_CLUSTER = client.ApiClient(SETTINGS)


@pytest.mark.parametrize(
    "name", ["", "-data", "data-", "Data", "my_data", "a.b", "a/b", "a" * 64, "data\n", "dätä", "a b", "../secrets"]
)
def test_bad_names(name):
    with pytest.raises(UserError) as refused:
        create_volume(NO_CLUSTER, "default", VolumeSpec(name))
    assert [problem.what for problem in refused.value.problems] == ["name"]
    with pytest.raises(UserError, match="1 problem"):
        delete_volume(NO_CLUSTER, "default", name)


@pytest.mark.parametrize(
    "size",
    [
        "",
        "50",
        "50GB",
        "50gi",
        "Gi",
        "-5Gi",
        "0Gi",
        "1_0Gi",
        "nan",
        "inf",
        "1e3",
        "5 Gi",
        "50Gi\n",
        "1000Ki",
        "5K",
        "5m",
    ],
)
def test_bad_sizes(size):
    with pytest.raises(UserError) as refused:
        check_spec(VolumeSpec("data", size=size))
    assert [problem.what for problem in refused.value.problems] == ["size"]
    assert refused.value.problems[0].given == repr(size)


@pytest.mark.parametrize(
    "modes", [(), ("",), ("RWX",), ("readwriteonce",), ("ReadOnlyMany",), ("ReadWriteOncePod", "ReadWriteOnce")]
)
def test_bad_access_modes(modes):
    with pytest.raises(UserError) as refused:
        check_spec(VolumeSpec("data", access_modes=modes))
    assert [problem.what for problem in refused.value.problems] == ["access_mode"]


@pytest.mark.parametrize("storage_class", ["Fast", "fast_ssd", ".fast", "fast..ssd", "a" * 254])
def test_bad_storage_classes(storage_class):
    with pytest.raises(UserError) as refused:
        check_spec(VolumeSpec("data", storage_class=storage_class))
    assert [problem.what for problem in refused.value.problems] == ["storage_class"]


@pytest.mark.parametrize("seconds", [0, -1, 86401, 1.5, True])
def test_bad_waits(seconds):
    with pytest.raises(UserError) as refused:
        check_spec(VolumeSpec("data", wait_seconds=seconds))
    assert [problem.what for problem in refused.value.problems] == ["wait_seconds"]


@pytest.mark.parametrize(
    "spec",
    [
        VolumeSpec("a"),
        VolumeSpec("a" * 63, size="1Mi"),
        VolumeSpec("0-data", size="1.5Ti", access_modes=("ReadWriteMany", "ReadWriteOnce")),
        VolumeSpec("data", size="50G", access_modes=("ReadWriteOncePod",), storage_class="fast.example-1.com"),
        VolumeSpec("data", size="2097152", wait_seconds=86400),
    ],
)
def test_good_specs(spec):
    check_spec(spec)


def test_all_problems_come_in_one_message():
    with pytest.raises(UserError) as refused:
        check_spec(VolumeSpec("My Data", "50GB", ("RWX",), "Fast SSD", 0))
    assert [problem.what for problem in refused.value.problems] == [
        "name",
        "size",
        "access_mode",
        "storage_class",
        "wait_seconds",
    ]
    message = str(refused.value)
    assert message.startswith("5 problems")
    assert all(given in message for given in ("'My Data'", "'50GB'", "'RWX'", "'Fast SSD'"))


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Take every cluster away, so that a call fails."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))


def test_without_create_nothing_is_called_or_checked(nowhere, capsys):
    assert ensure_volume(VolumeSpec("anything at all"), create=False) == "anything at all"
    assert "create=False" in capsys.readouterr().out


def test_with_keep_nothing_is_called(nowhere, capsys):
    remove_volume("data", keep=True)
    assert "volume data: not deleted, kept" in capsys.readouterr().out


def test_without_a_cluster_the_message_names_the_configuration(nowhere):
    for call in (lambda: ensure_volume(VolumeSpec("data"), create=True), lambda: remove_volume("data", keep=False)):
        with pytest.raises(UserError, match=r"(?s)Kubernetes configuration: given .*absent.*Set KUBECONFIG"):
            call()


def test_a_volume_that_is_taken_as_it_is_can_be_prepared(nowhere):
    with pytest.raises(UserError, match="Kubernetes configuration"):
        ensure_volume(VolumeSpec("data"), create=False, prepare=True)


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_directory_that_everybody_may_write_to_stays_as_it_is(tmp_path, mode):
    tmp_path.chmod(mode)
    before = tmp_path.stat()
    assert share(tmp_path) == ""
    after = tmp_path.stat()
    assert (after.st_mode, after.st_gid) == (before.st_mode, before.st_gid)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_parameter_is_said_before_a_missing_cluster(nowhere):
    with pytest.raises(UserError, match="name"):
        ensure_volume(VolumeSpec("My Data"), create=True)


def test_an_api_server_that_does_not_answer_is_named():
    with pytest.raises(UserError, match=r"API server: given 127.0.0.1:9, which does not answer"):
        create_volume(NO_CLUSTER, "default", VolumeSpec("data"))


@pytest.mark.parametrize("room", ["create_volume", "delete_volume"])
def test_a_component_runs_in_the_steps_image_and_describes_its_parameters(room):
    component = getattr(importlib.import_module(f"kfp_finetune.components.{room}.component"), room)
    spec = component.component_spec
    assert spec.implementation.container.image == STEPS_IMAGE
    assert "pip install" not in " ".join(spec.implementation.container.command)
    assert spec.description
    assert all(parameter.description for parameter in spec.inputs.values())
