"""Service accounts of a real cluster that hold some rights and no others."""

import copy
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kubernetes import client

from kfp_finetune.cluster.client import BoundedClient, Cluster
from kfp_finetune.cluster.rights import STEP_RIGHTS, Right, is_allowed

MANIFESTS = Path(__file__).parents[1] / "manifests"
RBAC_GROUP = "rbac.authorization.k8s.io"


def client_with_token(cluster: Cluster, token: str) -> BoundedClient:
    """A client of the cluster that carries a token and no other credentials."""
    settings = copy.deepcopy(cluster.api.configuration)
    settings.cert_file = settings.key_file = settings.refresh_api_key_hook = None
    settings.api_key = {"authorization": f"Bearer {token}"}
    return BoundedClient(settings)


def connect_as(admin: Cluster, account: str) -> Cluster:
    """Connects as a service account of the namespace."""
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
    core = client.CoreV1Api(admin.api)
    token = core.create_namespaced_service_account_token(account, admin.namespace, request).status.token
    return Cluster(client_with_token(admin, token), admin.namespace)


@contextmanager
def holding(admin: Cluster, rights: Iterable[Right]) -> Iterator[Cluster]:
    """Connects as a new service account of the namespace; its rights in the whole cluster are taken back at the end."""
    rights = tuple(rights)
    core, rbac = client.CoreV1Api(admin.api), client.RbacAuthorizationV1Api(admin.api)
    name = f"kfp-finetune-test-{uuid.uuid4().hex[:8]}"
    metadata = client.V1ObjectMeta(name=name)
    subjects = [client.RbacV1Subject(kind="ServiceAccount", name=name, namespace=admin.namespace)]

    def reference(kind: str) -> client.V1RoleRef:
        return client.V1RoleRef(api_group=RBAC_GROUP, kind=kind, name=name)

    core.create_namespaced_service_account(admin.namespace, client.V1ServiceAccount(metadata=metadata))
    role = client.V1Role(metadata=metadata, rules=_rules(rights, namespaced=True))
    binding = client.V1RoleBinding(metadata=metadata, role_ref=reference("Role"), subjects=subjects)
    rbac.create_namespaced_role(admin.namespace, role)
    rbac.create_namespaced_role_binding(admin.namespace, binding)
    cluster_role = client.V1ClusterRole(metadata=metadata, rules=_rules(rights, namespaced=False))
    cluster_binding = client.V1ClusterRoleBinding(
        metadata=metadata, role_ref=reference("ClusterRole"), subjects=subjects
    )
    rbac.create_cluster_role(cluster_role)
    rbac.create_cluster_role_binding(cluster_binding)
    try:
        account = connect_as(admin, name)
        _wait_for(account, rights)
        yield account
    finally:
        rbac.delete_cluster_role_binding(name)
        rbac.delete_cluster_role(name)


def _rules(rights: Iterable[Right], namespaced: bool) -> list[client.V1PolicyRule]:
    rules = []
    for right in rights:
        whole, slash, subresource = right.resource.partition("/")
        resource, _, group = whole.partition(".")
        if right.namespaced == namespaced:
            named = f"{resource}{slash}{subresource}"
            rules.append(client.V1PolicyRule(api_groups=[group], resources=[named], verbs=[right.verb]))
    return rules


def _wait_for(account: Cluster, rights: Iterable[Right], seconds: float = 30) -> None:
    """Waits until the API server has seen the roles."""
    end = time.monotonic() + seconds
    while not all(is_allowed(account, right) for right in rights):
        assert time.monotonic() < end, f"the roles are not in force within {seconds} s"
        time.sleep(0.05)


@contextmanager
def applied(overlay: str, namespace: str, folder: Path) -> Iterator[None]:
    """Applies an overlay of manifests/rbac to a namespace, under names that no other installation has.

    Args:
        overlay: Its name.
        namespace: Where the steps run.
        folder: An empty folder for a copy of the manifests.
    """
    rbac = shutil.copytree(MANIFESTS / "rbac", folder / "rbac")
    kustomization = rbac / "overlays" / overlay / "kustomization.yaml"
    text = kustomization.read_text()
    assert text.count("\nnamespace: kubeflow\n") == 1
    text = text.replace("namespace: kubeflow", f"namespace: {namespace}")
    kustomization.write_text(f"{text}nameSuffix: -{namespace}\n")
    subprocess.run(["kubectl", "apply", "-k", kustomization.parent], check=True)
    try:
        yield
    finally:
        subprocess.run(["kubectl", "delete", "-k", kustomization.parent, "--wait=false"], check=True)


def all_but(right: Right) -> tuple[Right, ...]:
    """Every right that the steps need, except one."""
    return tuple(one for one in STEP_RIGHTS if one != right)
