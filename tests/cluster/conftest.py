"""A real cluster to test on: the one of KUBECONFIG, used as an account that may do everything."""

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from accounts import applied, client_with_token, connect_as, holding
from cluster.pods import TESTS, Site, log, make_claim, phase, start_pod
from kubernetes import client

from kfp_finetune.cluster.client import BoundedClient, Cluster, connect
from kfp_finetune.cluster.rights import Right


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    """Return a function that returns the first true result of a check, or fails after some seconds."""
    return _eventually


def _eventually(check: Callable[[], object], seconds: float = 30) -> object:
    end = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.05)
    return result


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Connect to the cluster, with a namespace of this session's own that is deleted after it."""
    if not os.environ.get("KUBECONFIG"):
        reason = "KUBECONFIG is unset: set it to a kubeconfig with administrator rights to run the tests on a cluster"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    api = connect().api
    core = client.CoreV1Api(api)
    namespace = f"kfp-finetune-test-{uuid.uuid4().hex[:8]}"
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=namespace)))
    try:
        yield Cluster(api, namespace)
    finally:
        core.delete_namespace(namespace)


@pytest.fixture
def with_token(cluster: Cluster) -> Callable[[str], BoundedClient]:
    """Make clients of the cluster that carry the token given and no other credentials."""
    return partial(client_with_token, cluster)


@pytest.fixture
def holder(cluster: Cluster) -> Iterator[Callable[[Iterable[Right]], Cluster]]:
    """Return a function that connects as a new service account with the rights given and no others."""
    with ExitStack() as accounts:
        yield lambda rights: accounts.enter_context(holding(cluster, rights))


@pytest.fixture
def account(cluster: Cluster, with_token: Callable[[str], BoundedClient]) -> Callable[..., BoundedClient]:
    """Make clients of service accounts that hold only the rights given as resource="verb verb"."""

    def make(**rights: str) -> BoundedClient:
        core = client.CoreV1Api(cluster.api)
        name = f"account-{uuid.uuid4().hex[:8]}"
        metadata = client.V1ObjectMeta(name=name)
        core.create_namespaced_service_account(cluster.namespace, client.V1ServiceAccount(metadata=metadata))
        rules = [
            client.V1PolicyRule(api_groups=[""], resources=[resource], verbs=verbs.split())
            for resource, verbs in rights.items()
        ]
        rbac = client.RbacAuthorizationV1Api(cluster.api)
        rbac.create_namespaced_role(cluster.namespace, client.V1Role(metadata=metadata, rules=rules))
        rbac.create_namespaced_role_binding(
            cluster.namespace,
            client.V1RoleBinding(
                metadata=metadata,
                role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name=name),
                subjects=[client.RbacV1Subject(kind="ServiceAccount", name=name, namespace=cluster.namespace)],
            ),
        )
        request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
        token = core.create_namespaced_service_account_token(name, cluster.namespace, request).status.token
        api = with_token(token)
        for resource, verbs in rights.items():
            _eventually(partial(_may, api, cluster.namespace, verbs.split()[-1], resource))
        return api

    return make


def _may(api: client.ApiClient, namespace: str, verb: str, resource: str) -> bool:
    attributes = client.V1ResourceAttributes(namespace=namespace, verb=verb, resource=resource)
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
    return client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed


@pytest.fixture(scope="session")
def image() -> str:
    """Name of the train image, as the cluster's nodes have it."""
    return _needed("KFP_FINETUNE_TEST_IMAGE", "the train image of this source tree, loaded into the cluster's nodes")


@pytest.fixture(scope="session")
def api_server() -> Callable[[str], None]:
    """Return a function that kills or starts the API server."""
    program = _needed(
        "KFP_FINETUNE_TEST_PROCESS", "a program that takes the API server away: PROGRAM kill|start apiserver"
    )

    def act(action: str) -> None:
        subprocess.run([program, action, "apiserver"], check=True, stdout=subprocess.DEVNULL)

    return act


def _needed(variable: str, what: str) -> str:
    value = os.environ.get(variable)
    if not value:
        reason = f"{variable} is unset: set it to {what}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return value


@pytest.fixture(scope="session")
def steps_account(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of a service account that has the rights of manifests/rbac and no others."""
    with applied("own-account", cluster.namespace, tmp_path_factory.mktemp("rbac")):
        yield f"kfp-finetune-{cluster.namespace}"


@pytest.fixture(scope="session")
def steps(cluster: Cluster, steps_account: str) -> Cluster:
    """The cluster as the steps see it: with the rights of manifests/rbac and no others."""
    return connect_as(cluster, steps_account)


@pytest.fixture(scope="session")
def site(cluster: Cluster, image: str, steps_account: str) -> Site:
    """A claim with a small model and rows in /workspace/in, and where its pods run."""
    site = Site(cluster, image, make_claim(cluster), steps_account)
    files = {"tiny.py": (TESTS / "tiny.py").read_text()}
    make = "import tiny, pathlib as p; d = p.Path('/workspace/in'); tiny.write_model(d / 'base', 'qwen2'); "
    pod = start_pod(site, ["python", "-c", f"{make}tiny.write_rows(d / 'rows.jsonl', 40)"], files)
    _eventually(lambda: phase(site, pod) in ("Succeeded", "Failed"), 180)
    assert phase(site, pod) == "Succeeded", log(site, pod)
    return site
