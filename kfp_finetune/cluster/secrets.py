"""Whether Secrets exist; their data is never read."""

from kubernetes import client

from kfp_finetune.cluster.client import Cluster, ForbiddenError, api_call


def has_secret(cluster: Cluster, name: str) -> bool | None:
    """Whether a Secret exists; None if this account may not know, as the steps' own usually may not.

    Args:
        cluster: The cluster, with the Secret's namespace.
        name: The Secret's.

    Raises:
        UserError: If the API server cannot be reached or rejects the credentials.
    """
    try:
        with api_call("get", "secrets", cluster.namespace):
            try:
                _read_without_data(cluster, name)
            except client.ApiException as error:
                if error.status != 404:
                    raise
                return False
    except ForbiddenError:
        return None
    return True


def creation_of(cluster: Cluster, name: str) -> str:
    """The command that creates a Secret."""
    return f"kubectl -n {cluster.namespace} create secret generic {name} --from-literal=KEY=VALUE"


def _read_without_data(cluster: Cluster, name: str) -> None:
    """Asks for a Secret's metadata alone, so that no token travels."""
    cluster.api.call_api(
        "/api/v1/namespaces/{namespace}/secrets/{name}",
        "GET",
        path_params={"namespace": cluster.namespace, "name": name},
        header_params={"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"},
        auth_settings=["BearerToken"],
    )
