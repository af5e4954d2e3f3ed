"""What the account may do: the server, the namespace, the rights of the steps, the Secrets."""

from collections.abc import Iterator
from itertools import groupby

from kubernetes import client

from kfp_finetune.client.doctor.report import RIGHT, Check, State, judged
from kfp_finetune.cluster.client import Cluster, api_call, missing_right
from kfp_finetune.cluster.rights import STEP_RIGHTS, Right, account_name, missing_rights
from kfp_finetune.cluster.secrets import creation_of, has_secret


def check_access(cluster: Cluster) -> Iterator[Check]:
    """Checks the API server, the namespace and every right that the steps need.

    Args:
        cluster: The cluster, with the namespace of the runs.

    Raises:
        UserError: If the API server cannot be reached or rejects the credentials.
    """
    with api_call("get", "/version"):
        version = client.VersionApi(cluster.api).get_code().git_version
    yield Check("API server", State.PASS, f"Kubernetes {version}")
    user = account_name(cluster)
    yield Check("account", State.PASS, user)
    yield _check_namespace(cluster, user)
    missing = missing_rights(cluster)
    for resource, rights in groupby(STEP_RIGHTS, key=lambda right: right.resource):
        held = []
        for right in rights:
            if right in missing:
                yield _without(cluster, user, right)
            else:
                held.append(right.verb)
        if held:
            yield Check("rights", State.PASS, f"{resource}: {', '.join(held)}")


def _check_namespace(cluster: Cluster, user: str) -> Check:
    name = cluster.namespace

    def look() -> str | Check:
        with api_call("get", "namespaces"):
            try:
                client.CoreV1Api(cluster.api).read_namespace(name)
            except client.ApiException as error:
                if error.status != 404:
                    raise
                mend = f"Create it (kubectl create namespace {name}), or name another one with --namespace."
                return Check("namespace", State.FAIL, f"{name}, which does not exist", mend)
        return name

    # A service account proves that its namespace exists, and seldom may read it.
    if user.startswith(f"system:serviceaccount:{name}:"):
        return Check("namespace", State.PASS, name)
    return judged("namespace", look)


def _without(cluster: Cluster, user: str, right: Right) -> Check:
    mend = missing_right(user, right.verb, right.resource, cluster.namespace if right.namespaced else "").mend
    state = State.WARN if right.optional else State.FAIL
    return Check(RIGHT, state, f"missing: {right}; needed to {right.needed_for}", mend)


def check_secret(cluster: Cluster, name: str) -> Check:
    """Checks whether a Secret exists, if the account may know; its data is never read.

    Args:
        cluster: The cluster, with the Secret's namespace.
        name: The Secret's.

    Raises:
        UserError: If the API server cannot be reached.
    """
    what = f"secret {name}"

    def look() -> str | Check:
        found = has_secret(cluster, name)
        if found is None:
            mend = f"Look with an account that may: kubectl -n {cluster.namespace} get secret {name}"
            return Check(what, State.WARN, "unknown: this account may not read Secrets, and no step needs to", mend)
        where = f"in namespace {cluster.namespace}"
        return where if found else Check(what, State.FAIL, f"not {where}", f"Create it: {creation_of(cluster, name)}")

    return judged(what, look)
