"""What the cluster gives to pods: storage classes and GPUs."""

from collections.abc import Sequence

from kubernetes import client
from kubernetes.utils.quantity import parse_quantity

from kfp_finetune.client.doctor.report import Check, State, StorageClass, judged
from kfp_finetune.cluster.client import Cluster, ForbiddenError, api_call
from kfp_finetune.gpus import MEMORY_LABEL, PRODUCT_LABEL, find_gpu

GPU = "nvidia.com/gpu"
"""The resource that is looked for if none is named."""

UNTRIED = "unknown until tried"
"""Of access modes: nothing in a storage class says which its volumes can have."""

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def check_storage(cluster: Cluster) -> tuple[list[StorageClass], Check]:
    """Lists the storage classes, and checks whether one is the default.

    Args:
        cluster: The cluster, with the namespace of the runs.
    """
    found: list[StorageClass] = []

    def look() -> str | Check:
        try:
            found.extend(_storage_classes(cluster))
        except ForbiddenError:
            return "not looked at, since this account may not list them; the steps need not"
        default = [storage.name for storage in found if storage.default]
        if default:
            return f"{', '.join(storage.name for storage in found)}; default: {', '.join(default)}"
        if found:
            mend = "Name one in the run parameter storage_class, or let an administrator mark one as the default."
            return Check("storage classes", State.WARN, "none is the default", mend)
        mend = "Let an administrator install one, or use a claim that is there (create_volume=false)."
        return Check("storage classes", State.WARN, "none, so that volumes cannot be made", mend)

    return found, judged("storage classes", look)


def _storage_classes(cluster: Cluster) -> list[StorageClass]:
    with api_call("list", "storageclasses.storage.k8s.io"):
        classes = client.StorageV1Api(cluster.api).list_storage_class().items
    seen = _seen_modes(cluster)
    return [
        StorageClass(
            name=found.metadata.name,
            default=(found.metadata.annotations or {}).get(_DEFAULT_CLASS) == "true",
            binding=found.volume_binding_mode or "Immediate",
            provisioner=found.provisioner,
            access_modes=_modes(seen.get(found.metadata.name, set())),
        )
        for found in classes
    ]


def _modes(seen: set[str]) -> str:
    return f"{', '.join(sorted(seen))}; others {UNTRIED}" if seen else UNTRIED


def _seen_modes(cluster: Cluster) -> dict[str, set[str]]:
    """The access modes of the namespace's bound claims, by storage class; none if they may not be listed."""
    try:
        with api_call("list", "persistentvolumeclaims", cluster.namespace):
            claims = client.CoreV1Api(cluster.api).list_namespaced_persistent_volume_claim(cluster.namespace).items
    except ForbiddenError:
        return {}
    seen: dict[str, set[str]] = {}
    for claim in claims:
        if claim.status.phase == "Bound" and claim.spec.storage_class_name:
            seen.setdefault(claim.spec.storage_class_name, set()).update(claim.status.access_modes or ())
    return seen


def check_gpus(cluster: Cluster, wanted: str | None) -> Check:
    """Checks whether a node that takes pods has GPUs.

    Args:
        cluster: The cluster.
        wanted: Kubernetes resource name that some node must have; None looks for `GPU` and only warns.
    """
    resource = wanted or GPU
    what = f"GPUs {resource}"

    def look() -> str | Check:
        with api_call("list", "nodes"):
            nodes = client.CoreV1Api(cluster.api).list_node().items
        open_nodes = [node for node in nodes if not node.spec.unschedulable]
        counts = [parse_quantity((node.status.allocatable or {}).get(resource, "0")) for node in open_nodes]
        having = [count for count in counts if count]
        if having:
            kinds = _kinds([node for node, count in zip(open_nodes, counts, strict=True) if count])
            found = f"{sum(having):f} in all, at most {max(having):f} on one node (nodes with them: {len(having)})"
            return "; ".join([found, *kinds])
        mend = "Install the GPUs' device plugin, name another resource with --gpu, or let an autoscaler add nodes."
        state = State.FAIL if wanted else State.WARN
        return Check(what, state, f"none on the nodes that take pods ({len(open_nodes)} of {len(nodes)})", mend)

    return judged(what, look)


def _kinds(nodes: Sequence[client.V1Node]) -> list[str]:
    """What the nodes' GPUs are and how much memory each has, as far as labels tell it."""
    labels = [node.metadata.labels or {} for node in nodes]
    kinds = {(found[PRODUCT_LABEL], found.get(MEMORY_LABEL, "")) for found in labels if PRODUCT_LABEL in found}
    return [_kind(product, memory) for product, memory in sorted(kinds)]


def _kind(product: str, memory: str) -> str:
    gpu = find_gpu(product)
    mib = int(memory) if memory.isdecimal() else gpu.memory_mib if gpu else 0
    return f"{product}, {mib / 1024:.1f} GiB each" if mib else product
