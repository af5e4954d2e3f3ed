"""The rights that the steps need in a cluster, and which of them the account at hand lacks."""

from dataclasses import dataclass

from kubernetes import client

from kfp_finetune.cluster.client import Cluster, api_call
from kfp_finetune.cluster.trainer import GROUP


@dataclass(frozen=True)
class Right:
    """One verb on one kind of object.

    Args:
        verb: The RBAC verb.
        resource: The resource's plural, as kubectl takes it: "pods/log", "trainjobs.trainer.kubeflow.org".
        namespaced: Whether it is needed in the run's namespace; if not, in the whole cluster.
        needed_for: What the steps do with it.
        optional: Whether the steps also work without it, and only say less.
    """

    verb: str
    resource: str
    namespaced: bool
    needed_for: str
    optional: bool = False

    def __str__(self) -> str:
        """The right as one phrase."""
        return f"{self.verb} {self.resource}"


_TRAINJOBS = f"trainjobs.{GROUP}"
_RUNTIMES = f"trainingruntimes.{GROUP}"
_CLUSTER_RUNTIMES = f"clustertrainingruntimes.{GROUP}"
_CLAIMS = "persistentvolumeclaims"
_CLASSES = "storageclasses.storage.k8s.io"

STEP_RIGHTS: tuple[Right, ...] = (
    Right("create", _TRAINJOBS, True, "start a training"),
    Right("get", _TRAINJOBS, True, "find the training that runs already"),
    Right("list", _TRAINJOBS, True, "find the trainings of a run that has ended"),
    Right("watch", _TRAINJOBS, True, "follow a training"),
    Right("patch", _TRAINJOBS, True, "show that a step still waits for a training"),
    Right("delete", _TRAINJOBS, True, "end a training together with its run"),
    Right("get", _RUNTIMES, True, "check the runtime before a training starts"),
    Right("list", _RUNTIMES, True, "name the runtimes that there are", optional=True),
    Right("get", _CLUSTER_RUNTIMES, False, "check the runtime before a training starts"),
    Right("list", _CLUSTER_RUNTIMES, False, "name the runtimes that there are", optional=True),
    Right("get", "pods", True, "say why a training failed"),
    Right("list", "pods", True, "find the pods of a training"),
    Right("watch", "pods", True, "follow the pods of a training"),
    Right("create", "pods", True, "make a volume writable for the steps (prepare)"),
    Right("delete", "pods", True, "remove the pod that made a volume writable"),
    Right("get", "pods/log", True, "show the log and the progress of a training"),
    Right("list", "events", True, "say why a training or a volume waits", optional=True),
    Right("get", _CLAIMS, True, "check the volume"),
    Right("watch", _CLAIMS, True, "wait for the volume's storage"),
    Right("create", _CLAIMS, True, "create the volume"),
    Right("delete", _CLAIMS, True, "delete the volume after a run that does not keep it"),
    Right("get", _CLASSES, False, "tell a volume that binds late from one that never will", optional=True),
)
"""Every right that a step of the pipelines uses, no more: what `manifests/rbac` grants."""


def missing_rights(cluster: Cluster) -> tuple[Right, ...]:
    """Ask the cluster which of `STEP_RIGHTS` this account lacks; the question itself needs no right.

    Args:
        cluster: The cluster, with the namespace that is asked about.

    Raises:
        UserError: If the cluster cannot be reached or rejects the credentials.
    """
    return tuple(right for right in STEP_RIGHTS if not is_allowed(cluster, right))


def is_allowed(cluster: Cluster, right: Right) -> bool:
    """Ask the cluster whether this account has a right.

    Args:
        cluster: The cluster, with the namespace that is asked about.
        right: The right.

    Raises:
        UserError: See `missing_rights`.
    """
    whole, _, subresource = right.resource.partition("/")
    resource, _, group = whole.partition(".")
    attributes = client.V1ResourceAttributes(
        namespace=cluster.namespace if right.namespaced else None,
        verb=right.verb,
        group=group,
        resource=resource,
        subresource=subresource,
    )
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
    with api_call("create", "selfsubjectaccessreviews.authorization.k8s.io"):
        return client.AuthorizationV1Api(cluster.api).create_self_subject_access_review(review).status.allowed


def account_name(cluster: Cluster) -> str:
    """Ask the cluster as whom it knows this account, such as "system:serviceaccount:kubeflow:pipeline-runner".

    Args:
        cluster: The cluster.

    Raises:
        UserError: See `missing_rights`.
    """
    with api_call("create", "selfsubjectreviews.authentication.k8s.io"):
        review = client.AuthenticationV1Api(cluster.api).create_self_subject_review(client.V1SelfSubjectReview())
    return review.status.user_info.username
