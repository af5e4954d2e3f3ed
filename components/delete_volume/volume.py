"""Delete the claim on which a pipeline kept its large files, if this library made it."""

from dataclasses import dataclass

from kubernetes import client

from kfp_finetune.cluster.client import api_call, connect
from kfp_finetune.cluster.ownership import made_by_us
from kfp_finetune.components.create_volume.spec import name_problems
from kfp_finetune.errors import UserError

_CLAIMS = "persistentvolumeclaims"


@dataclass(frozen=True)
class Deletion:
    """What became of a claim that may have been to be deleted.

    Args:
        name: Name of the claim.
        deleted: Whether it is being deleted; it stays Terminating until no pod uses it.
        why: The reason, in words.

    """

    name: str
    deleted: bool
    why: str

    def __str__(self) -> str:
        """Return the outcome as one line."""
        return f"volume {self.name}: {'deleted' if self.deleted else 'not deleted'}, {self.why}"


def remove_volume(name: str, keep: bool) -> None:
    """Delete a volume in the namespace at hand, or make no call at all, and print what became of it.

    Args:
        name: Name of the claim.
        keep: Whether to keep it.

    Raises:
        UserError: See `delete_volume`; also if there is no cluster to connect to.

    """
    if keep:
        deletion = Deletion(name, False, "kept as asked (keep=True)")
    else:
        cluster = connect()
        deletion = delete_volume(cluster.api, cluster.namespace, name)
    print(deletion, flush=True)


def delete_volume(api: client.ApiClient, namespace: str, name: str) -> Deletion:
    """Delete a claim that this library made, without a wait.

    Args:
        api: The cluster's client.
        namespace: Namespace of the claim.
        name: Name of the claim.

    Returns:
        Whether it is deleted, and why or why not.

    Raises:
        UserError: If the name cannot be one, or if the cluster refuses a call.

    """
    if problems := name_problems(name):
        raise UserError(problems)
    core = client.CoreV1Api(api)
    with api_call("get", _CLAIMS, namespace):
        try:
            claim = core.read_namespaced_persistent_volume_claim(name, namespace)
        except client.ApiException as error:
            if error.status == 404:
                return Deletion(name, False, f"there is none in namespace {namespace}")
            raise
    if not made_by_us(claim.metadata.labels):
        return Deletion(name, False, "something else made it, so it is left alone")
    if claim.metadata.deletion_timestamp:
        return Deletion(name, True, "before; it goes when the last pod that uses it is gone")
    this_one = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=claim.metadata.uid))
    with api_call("delete", _CLAIMS, namespace):
        try:
            core.delete_namespaced_persistent_volume_claim(name, namespace, body=this_one)
        except client.ApiException as error:
            if error.status == 404:
                return Deletion(name, False, "it went by itself meanwhile")
            if error.status == 409:
                return Deletion(name, False, "another claim took its name meanwhile and is left alone")
            raise
    return Deletion(name, True, "it goes when the last pod that uses it is gone")
