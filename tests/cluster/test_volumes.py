"""create_volume and delete_volume against a real cluster."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster.pods import Site, log, start_pod
from cluster.pods import phase as pod_phase
from kubernetes import client

from kfp_finetune.cluster.client import Cluster
from kfp_finetune.cluster.ownership import MANAGED_BY
from kfp_finetune.components.create_volume.preparing import prepare_volume
from kfp_finetune.components.create_volume.spec import VolumeSpec
from kfp_finetune.components.create_volume.volume import create_volume
from kfp_finetune.components.delete_volume.volume import delete_volume
from kfp_finetune.errors import UserError

CLAIM_RIGHTS = "create get list watch delete"
EVENT_RIGHTS = "get list watch"


@pytest.fixture
def core(cluster):
    return client.CoreV1Api(cluster.api)


@pytest.fixture
def name():
    return f"volume-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def make_class(cluster):
    """Make storage classes for which nothing provisions: their claims bind to volumes that the test makes."""
    storage = client.StorageV1Api(cluster.api)
    made = []

    def make(binding_mode, provisioner="kfp-finetune.test/none", name=""):
        metadata = client.V1ObjectMeta(name=name or f"kfp-finetune-test-{uuid.uuid4().hex[:8]}")
        body = client.V1StorageClass(metadata=metadata, provisioner=provisioner, volume_binding_mode=binding_mode)
        storage.create_storage_class(body)
        made.append(metadata.name)
        return metadata.name

    yield make
    for storage_class in made:
        storage.delete_storage_class(storage_class)


@pytest.fixture
def make_storage(core):
    """Make persistent volumes of a class, which no pod ever mounts."""
    made = []

    def make(storage_class, size="20Mi", modes=("ReadWriteOnce",)):
        name = f"kfp-finetune-test-{uuid.uuid4().hex[:8]}"
        spec = client.V1PersistentVolumeSpec(
            storage_class_name=storage_class,
            capacity={"storage": size},
            access_modes=list(modes),
            persistent_volume_reclaim_policy="Retain",
            host_path=client.V1HostPathVolumeSource(path=f"/tmp/{name}"),
        )
        made.append(name)
        core.create_persistent_volume(client.V1PersistentVolume(metadata=client.V1ObjectMeta(name=name), spec=spec))
        return name

    yield make
    for name in made:
        try:
            core.patch_persistent_volume(name, {"metadata": {"finalizers": None}})
            core.delete_persistent_volume(name)
        except client.ApiException as error:
            if error.status != 404:
                raise


@pytest.fixture
def late_class(make_class):
    """Make a class whose claims bind when a pod mounts them, so that create_volume does not wait."""
    return make_class("WaitForFirstConsumer")


def put_claim(core, namespace, name, labels=MANAGED_BY, storage_class=None, finalizers=None):
    """Create a claim as someone else, or an earlier run, may have left it."""
    core.create_namespaced_persistent_volume_claim(
        namespace,
        client.V1PersistentVolumeClaim(
            metadata=client.V1ObjectMeta(name=name, labels=dict(labels), finalizers=finalizers),
            spec=client.V1PersistentVolumeClaimSpec(
                access_modes=["ReadWriteOnce"],
                resources=client.V1VolumeResourceRequirements(requests={"storage": "10Mi"}),
                storage_class_name=storage_class,
            ),
        ),
    )


def events(core, namespace, name):
    """Return the events of a claim."""
    return core.list_namespaced_event(namespace, field_selector=f"involvedObject.name={name}").items


def phase(core, namespace, name):
    """Return the phase of a claim; None if there is none."""
    try:
        claim = core.read_namespaced_persistent_volume_claim(name, namespace)
    except client.ApiException as error:
        assert error.status == 404
        return None
    return "Terminating" if claim.metadata.deletion_timestamp else claim.status.phase


def whats(refused):
    return [problem.what.split(" of ")[0] for problem in refused.value.problems]


def test_the_default_class_is_asked_for_by_leaving_the_class_out(cluster, core, name):
    volume = create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", wait_seconds=120))
    claim = core.read_namespaced_persistent_volume_claim(name, cluster.namespace)
    assert volume.created and volume.storage_class == claim.spec.storage_class_name != ""
    assert volume.bound == (claim.status.phase == "Bound")
    assert claim.metadata.labels == MANAGED_BY
    assert (volume.name, volume.namespace, volume.access_modes) == (name, cluster.namespace, ("ReadWriteOnce",))


def test_again_and_with_less_it_is_found(cluster, late_class, name):
    first = create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", storage_class=late_class))
    again = create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10485760", storage_class=late_class))
    less = create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "5Mi"))
    assert (first.created, again.created, less.created) == (True, False, False)
    assert first.size == again.size == less.size == "10Mi"
    assert first.storage_class == less.storage_class == late_class


def test_many_at_once_make_one(cluster, late_class, name):
    spec = VolumeSpec(name, "10Mi", storage_class=late_class)
    with ThreadPoolExecutor(8) as pool:
        volumes = list(pool.map(lambda _: create_volume(cluster.api, cluster.namespace, spec), range(8)))
    assert sorted(volume.created for volume in volumes) == [False] * 7 + [True]


def test_too_small(cluster, late_class, name):
    create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "1Gi", storage_class=late_class))
    with pytest.raises(UserError, match=r"given 1Gi; allowed: 1100M or more") as refused:
        create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "1100M"))
    assert whats(refused) == ["size"]


def test_other_access_mode(cluster, late_class, name):
    create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", storage_class=late_class))
    with pytest.raises(UserError, match=r"given ReadWriteOnce; allowed: one with ReadWriteMany") as refused:
        create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", ("ReadWriteMany",)))
    assert whats(refused) == ["access_mode"]


def test_read_write_many_serves_a_run_on_one_node(cluster, late_class, name):
    shared = VolumeSpec(name, "10Mi", ("ReadWriteMany",), late_class)
    assert create_volume(cluster.api, cluster.namespace, shared).created
    assert not create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi")).created


def test_foreign_claim_is_refused_and_untouched(cluster, core, late_class, name):
    put_claim(core, cluster.namespace, name, {"app.kubernetes.io/managed-by": "Helm"}, late_class)
    before = core.read_namespaced_persistent_volume_claim(name, cluster.namespace)
    with pytest.raises(UserError, match=r"something else made.*managed-by=kfp-finetune") as refused:
        create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi"))
    assert len(refused.value.problems) == 1
    assert core.read_namespaced_persistent_volume_claim(name, cluster.namespace) == before


def test_every_difference_comes_in_one_message(cluster, core, late_class, name):
    put_claim(core, cluster.namespace, name, {}, late_class, finalizers=["kfp-finetune.test/hold"])
    core.delete_namespaced_persistent_volume_claim(name, cluster.namespace)
    try:
        with pytest.raises(UserError, match="5 problems") as refused:
            create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "20Mi", ("ReadWriteMany",), "other"))
    finally:
        core.patch_namespaced_persistent_volume_claim(name, cluster.namespace, {"metadata": {"finalizers": None}})
    where = f"volume {name} in namespace {cluster.namespace}"
    assert whats(refused) == [where, where, "size", "access_mode", "storage_class"]
    assert "being deleted" in str(refused.value)


def test_unknown_storage_class_is_explained_and_leaves_nothing(cluster, eventually, core, name):
    with pytest.raises(UserError, match=r'storage_class.*"no-such-class" not found') as refused:
        create_volume(
            cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", storage_class="no-such-class", wait_seconds=30)
        )
    assert "deleted again" in str(refused.value)
    eventually(lambda: phase(core, cluster.namespace, name) is None)


def test_a_class_made_after_its_claim_is_no_missing_one(cluster, eventually, core, make_class, make_storage, name):
    put_claim(core, cluster.namespace, name, storage_class=name)
    eventually(
        lambda: [event for event in events(core, cluster.namespace, name) if event.reason == "ProvisioningFailed"]
    )
    make_class("Immediate", name=name)
    make_storage(name)
    assert create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", wait_seconds=60)).bound


def test_no_default_class_is_explained(cluster, core, name):
    put_claim(core, cluster.namespace, name, storage_class="")
    with pytest.raises(UserError, match=r"storage_class: given none, and the cluster has no default class"):
        create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", wait_seconds=60))
    assert phase(core, cluster.namespace, name) == "Pending", "a claim of an earlier run is not deleted"


def test_pending_claim_is_explained_by_its_events_and_kept(cluster, core, make_class, make_storage, name, capsys):
    spec = VolumeSpec(name, "10Mi", storage_class=make_class("Immediate"), wait_seconds=20)
    with pytest.raises(UserError, match=r"still Pending after 20 s \(ExternalProvisioning: .*kfp-finetune.test/none"):
        create_volume(cluster.api, cluster.namespace, spec)
    assert capsys.readouterr().out.count("ExternalProvisioning") == 1
    make_storage(spec.storage_class)
    volume = create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", wait_seconds=60))
    assert volume.bound and not volume.created


@pytest.fixture
def once_made(cluster, core, eventually, name):
    """Do something in the background once the claim of the test is there."""

    def start(action, *args):
        def act():
            eventually(lambda: phase(core, cluster.namespace, name))
            action(*args)

        threading.Thread(target=act, daemon=True).start()

    return start


def test_immediate_class_is_waited_for(cluster, make_class, make_storage, once_made, name):
    storage_class = make_class("Immediate")
    once_made(make_storage, storage_class)
    volume = create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", storage_class=storage_class))
    assert volume.created and volume.bound and volume.size == "20Mi", "the size is that of the storage"


def test_late_binding_class_is_not_waited_for(cluster, core, late_class, name):
    volume = create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", storage_class=late_class))
    assert not volume.bound and phase(core, cluster.namespace, name) == "Pending"


def test_claim_deleted_while_waited_for(cluster, core, make_class, once_made, name):
    spec = VolumeSpec(name, "10Mi", storage_class=make_class("Immediate"), wait_seconds=600)
    once_made(core.delete_namespaced_persistent_volume_claim, name, cluster.namespace)
    with pytest.raises(UserError, match="deleted during the wait"):
        create_volume(cluster.api, cluster.namespace, spec)


def test_lost_claim_is_refused(cluster, eventually, core, make_class, make_storage, name):
    spec = VolumeSpec(name, "10Mi", storage_class=make_class("Immediate"))
    storage = make_storage(spec.storage_class)
    assert create_volume(cluster.api, cluster.namespace, spec).bound
    core.delete_persistent_volume(storage)
    core.patch_persistent_volume(storage, {"metadata": {"finalizers": None}})
    eventually(lambda: phase(core, cluster.namespace, name) == "Lost")
    with pytest.raises(UserError, match=r"storage is gone \(Lost\)"):
        create_volume(cluster.api, cluster.namespace, spec)


def test_quota_is_not_taken_for_a_missing_right(cluster, eventually, core, late_class, name):
    limit = {f"{late_class}.storageclass.storage.k8s.io/requests.storage": "15Mi"}
    quota = client.V1ResourceQuota(metadata=client.V1ObjectMeta(name=name), spec=client.V1ResourceQuotaSpec(hard=limit))
    core.create_namespaced_resource_quota(cluster.namespace, quota)
    eventually(lambda: core.read_namespaced_resource_quota(name, cluster.namespace).status.used)
    spec = VolumeSpec(name, "10Mi", storage_class=late_class)
    assert create_volume(cluster.api, cluster.namespace, spec).created
    with pytest.raises(UserError, match=r"does not admit .*exceeded quota: .*15Mi"):
        create_volume(cluster.api, cluster.namespace, VolumeSpec(f"{name}-2", "10Mi", storage_class=late_class))
    assert not create_volume(cluster.api, cluster.namespace, spec).created, "what is there needs no more quota"


def test_absent_namespace_is_named(cluster, name):
    with pytest.raises(UserError, match="namespace: given no-such-namespace;"):
        create_volume(cluster.api, "no-such-namespace", VolumeSpec(name))


def test_delete_is_for_our_own_only(cluster, eventually, core, late_class, name):
    create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", storage_class=late_class))
    put_claim(core, cluster.namespace, f"{name}-foreign", {}, late_class)
    ours = delete_volume(cluster.api, cluster.namespace, name)
    foreign = delete_volume(cluster.api, cluster.namespace, f"{name}-foreign")
    eventually(lambda: phase(core, cluster.namespace, name) is None)
    assert ours.deleted
    assert not foreign.deleted and "left alone" in str(foreign)
    assert phase(core, cluster.namespace, f"{name}-foreign") == "Pending"


def test_delete_of_an_absent_claim_is_fine(cluster, name):
    deletion = delete_volume(cluster.api, cluster.namespace, name)
    assert not deletion.deleted and "there is none" in str(deletion)


def test_delete_does_not_wait_for_a_claim_in_use(cluster, core, late_class, name):
    put_claim(core, cluster.namespace, name, storage_class=late_class, finalizers=["kfp-finetune.test/hold"])
    assert delete_volume(cluster.api, cluster.namespace, name).deleted
    assert phase(core, cluster.namespace, name) == "Terminating"
    assert "before" in delete_volume(cluster.api, cluster.namespace, name).why
    core.patch_namespaced_persistent_volume_claim(name, cluster.namespace, {"metadata": {"finalizers": None}})


def test_least_privilege_suffices(cluster, eventually, core, account, make_class, make_storage, late_class, name):
    api = account(persistentvolumeclaims=CLAIM_RIGHTS, events=EVENT_RIGHTS)
    with pytest.raises(client.ApiException) as refused:
        client.StorageV1Api(api).list_storage_class()
    assert refused.value.status == 403
    spec = VolumeSpec(f"{name}-late", "10Mi", storage_class=late_class, wait_seconds=30)
    late = create_volume(api, cluster.namespace, spec)
    assert not late.bound
    immediate = make_class("Immediate")
    make_storage(immediate)
    assert create_volume(api, cluster.namespace, VolumeSpec(f"{name}-now", "10Mi", storage_class=immediate)).bound
    with pytest.raises(UserError, match=r"not found.*\n.*deleted again"):
        create_volume(
            api, cluster.namespace, VolumeSpec(f"{name}-none", "10Mi", storage_class="no-such-class", wait_seconds=30)
        )
    for suffix in ("late", "now"):
        assert delete_volume(api, cluster.namespace, f"{name}-{suffix}").deleted
    eventually(lambda: not any(phase(core, cluster.namespace, f"{name}-{suffix}") for suffix in ("late", "now")))


def test_without_create_the_missing_right_is_named(cluster, account, name):
    api = account(persistentvolumeclaims="get list watch delete", events=EVENT_RIGHTS)
    with pytest.raises(UserError) as refused:
        create_volume(api, cluster.namespace, VolumeSpec(name))
    (problem,) = refused.value.problems
    assert problem.what == f"the right to create persistentvolumeclaims in namespace {cluster.namespace}"
    assert f"system:serviceaccount:{cluster.namespace}:account-" in problem.given
    assert "--verb=create --resource=persistentvolumeclaims" in problem.mend


def test_without_delete_the_missing_right_is_named(cluster, core, account, late_class, name):
    put_claim(core, cluster.namespace, name, storage_class=late_class)
    with pytest.raises(UserError, match="the right to delete persistentvolumeclaims in namespace"):
        delete_volume(account(persistentvolumeclaims="create get list watch"), cluster.namespace, name)


def test_without_watch_the_missing_right_is_named(cluster, account, make_class, name):
    api = account(persistentvolumeclaims="create get list delete", events=EVENT_RIGHTS)
    with pytest.raises(UserError, match="the right to watch persistentvolumeclaims in namespace"):
        create_volume(api, cluster.namespace, VolumeSpec(name, "10Mi", storage_class=make_class("Immediate")))


def test_without_events_the_wait_still_works_and_says_so(cluster, account, make_class, make_storage, name):
    api = account(persistentvolumeclaims=CLAIM_RIGHTS)
    spec = VolumeSpec(name, "10Mi", storage_class=make_class("Immediate"), wait_seconds=1)
    with pytest.raises(UserError, match=r"still Pending after 1 s .*may not list events"):
        create_volume(api, cluster.namespace, spec)
    make_storage(spec.storage_class)
    assert create_volume(api, cluster.namespace, VolumeSpec(name, "10Mi")).bound


def test_bad_credentials_are_named(cluster, with_token, name):
    with pytest.raises(UserError, match="the Kubernetes credentials"):
        create_volume(with_token("not-a-token"), cluster.namespace, VolumeSpec(name))


@pytest.fixture
def does(image, eventually):
    """Return a function that runs a command with a volume in /workspace, and tells how it ended and what it said."""

    def run(cluster, volume, command, **options):
        site = Site(cluster, image, volume, "default")
        pod = start_pod(site, ["sh", "-c", command], **options)
        ended = eventually(lambda: pod_phase(site, pod) in ("Succeeded", "Failed") and pod_phase(site, pod), 120)
        return ended, log(site, pod).strip()

    return run


@pytest.fixture
def roots_own(does, name):
    """Return a function that makes a volume that only root may write to."""

    def make(cluster):
        create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi", ("ReadWriteMany",)))
        assert does(cluster, name, "touch /workspace/before; chmod 755 /workspace", user=0) == ("Succeeded", "")
        return name

    return make


def preparing_pods(cluster, volume):
    pods = client.CoreV1Api(cluster.api).list_namespaced_pod(cluster.namespace).items
    return [pod.metadata.name for pod in pods if pod.metadata.name.startswith(f"{volume}-prepare-")]


def test_a_volume_of_root_s_cannot_be_written_before_it_is_prepared_and_can_after(
    cluster, steps, image, does, roots_own, eventually, capsys
):
    volume = roots_own(cluster)
    assert does(cluster, volume, "touch /workspace/mine")[0] == "Failed"
    capsys.readouterr()
    prepare_volume(steps.api, steps.namespace, volume, image, 120)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"volume {volume}: not writable yet (/workspace is owned by 0:0 with mode 755)")
    assert lines[1:] == [f"volume {volume}: writable for group 0"]
    look = "stat -c %u:%g:%a /workspace /workspace/before && touch /workspace/mine"
    assert does(cluster, volume, look) == ("Succeeded", "0:0:2775\n0:0:644"), "nothing below the root is changed"
    prepare_volume(steps.api, steps.namespace, volume, image, 120)
    assert capsys.readouterr().out == f"volume {volume}: writable for group 0\n", "no pod runs as root once it is"
    eventually(lambda: preparing_pods(cluster, volume) == [])


def test_where_no_pod_may_run_as_root_one_message_says_what_else_to_do(cluster, image, roots_own, eventually):
    core = client.CoreV1Api(cluster.api)
    strict = Cluster(cluster.api, f"{cluster.namespace}-strict")
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=strict.namespace)))
    try:
        eventually(lambda: core.list_namespaced_service_account(strict.namespace).items)
        volume = roots_own(strict)
        policy = {"pod-security.kubernetes.io/enforce": "restricted"}
        core.patch_namespace(strict.namespace, {"metadata": {"labels": policy}})
        with pytest.raises(UserError, match="1 problem") as refused:
            prepare_volume(cluster.api, strict.namespace, volume, image, 120)
        (problem,) = refused.value.problems
        assert problem.what == f"volume {volume}"
        assert "owned by 0:0 with mode 755" in problem.given and "violates PodSecurity" in problem.given
        assert "chgrp 0 ROOT && chmod g+rwxs ROOT" in problem.mend
        eventually(lambda: preparing_pods(strict, volume) == [])
    finally:
        core.delete_namespace(strict.namespace)


def test_a_pod_that_cannot_run_is_explained_waited_for_no_longer_than_allowed_and_deleted(
    cluster, core, name, eventually
):
    create_volume(cluster.api, cluster.namespace, VolumeSpec(name, "10Mi"))
    with pytest.raises(UserError, match=r"did not prepare in time: (ErrImagePull|ImagePullBackOff) .*localhost/none:1"):
        prepare_volume(cluster.api, cluster.namespace, name, "localhost/none:1", 30)
    eventually(lambda: preparing_pods(cluster, name) == [])


def test_a_volume_whose_storage_never_comes_is_explained_when_it_is_prepared(cluster, core, make_class, image, name):
    put_claim(core, cluster.namespace, name, storage_class=make_class("Immediate"))
    with pytest.raises(UserError, match=r"did not prepare in time: Unschedulable .*unbound immediate"):
        prepare_volume(cluster.api, cluster.namespace, name, image, 20)


def test_an_absent_volume_is_not_prepared(cluster, image, name):
    with pytest.raises(UserError, match=rf"volume {name}: given none of that name"):
        prepare_volume(cluster.api, cluster.namespace, name, image, 5)


def test_without_the_right_to_create_pods_it_is_named(cluster, core, account, image, late_class, name):
    put_claim(core, cluster.namespace, name, storage_class=late_class)
    with pytest.raises(UserError, match="the right to create pods in namespace"):
        prepare_volume(account(persistentvolumeclaims="get"), cluster.namespace, name, image, 5)
