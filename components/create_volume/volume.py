"""Create the claim on which a pipeline keeps its large files, or find it again."""

from dataclasses import dataclass, replace
from typing import Any

from kubernetes import client
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from kfp_finetune.cluster.client import api_call, connect
from kfp_finetune.cluster.ownership import MANAGED_BY, made_by_us
from kfp_finetune.components.create_volume.binding import HopelessClaimError, wait_until_usable
from kfp_finetune.components.create_volume.preparing import prepare_volume
from kfp_finetune.components.create_volume.spec import VolumeSpec, bytes_of, check_spec
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.images import STEPS_IMAGE

_CLAIMS = "persistentvolumeclaims"


@dataclass(frozen=True)
class Volume:
    """A claim that steps can mount.

    Args:
        name: Name of the claim.
        namespace: Its namespace.
        size: Its size as a Kubernetes quantity: of the storage once that is there, as requested until then.
        access_modes: Its access modes.
        storage_class: Its storage class; "" if it has none.
        bound: Whether the storage is there; if not, the first pod that mounts the claim makes it.
        created: Whether this call created it.

    """

    name: str
    namespace: str
    size: str
    access_modes: tuple[str, ...]
    storage_class: str
    bound: bool
    created: bool

    def __str__(self) -> str:
        """Return the volume as one line."""
        origin = "created" if self.created else "found again"
        state = "bound" if self.bound else "gets its storage from the first pod that mounts it"
        modes = ", ".join(self.access_modes)
        return f"volume {self.name} in namespace {self.namespace}: {origin}, {self.size}, {modes}, {state}"


def ensure_volume(spec: VolumeSpec, create: bool, prepare: bool = False, image: str = "") -> str:
    """Create a volume in the namespace at hand and make it writable for the steps, as far as either is asked for.

    Args:
        spec: The volume.
        create: Whether to create it; if not, `spec.name` is taken as it is.
        prepare: Whether to make it writable for the steps' group; see `preparing.prepare_volume`.
        image: Image of the pod that does so; empty for this library's image of the steps.

    Returns:
        The name of the claim.

    Raises:
        UserError: See `create_volume` and `preparing.prepare_volume`; also if there is no cluster to connect to.

    """
    if not create:
        print(f"volume {spec.name}: taken as it is (create=False)", flush=True)
    if not (create or prepare):
        return spec.name
    check_spec(spec)
    cluster = connect()
    if create:
        print(create_volume(cluster.api, cluster.namespace, spec), flush=True)
    if prepare:
        prepare_volume(cluster.api, cluster.namespace, spec.name, image or STEPS_IMAGE, spec.wait_seconds)
    return spec.name


def create_volume(api: client.ApiClient, namespace: str, spec: VolumeSpec) -> Volume:
    """Create a claim, or find the one that this library made before, and wait until it can be used.

    A claim that can never be bound is deleted again if this call created it.

    Args:
        api: The cluster's client.
        namespace: Namespace of the claim.
        spec: What to create.

    Returns:
        The claim.

    Raises:
        UserError: If the description cannot work, if a claim of that name is not ours or differs from it, if the
            claim stays pending, or if the cluster refuses a call.

    """
    check_spec(spec)
    core = client.CoreV1Api(api)
    claim, created = _find_or_make(core, namespace, spec)
    if not created:
        _refuse_unfit(claim, spec)
    try:
        claim = wait_until_usable(api, claim, spec.wait_seconds)
    except HopelessClaimError as error:
        raise (_taken_back(core, claim, error) if created else error) from error
    bound = claim.status.phase == "Bound"
    return Volume(
        name=claim.metadata.name,
        namespace=namespace,
        size=claim.status.capacity["storage"] if bound else claim.spec.resources.requests["storage"],
        access_modes=tuple(claim.spec.access_modes),
        storage_class=claim.spec.storage_class_name or "",
        bound=bound,
        created=created,
    )


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, client.ApiException) and error.status == 409


@retry(retry=retry_if_exception(_is_conflict), stop=stop_after_attempt(5), wait=wait_random(0.1, 1), reraise=True)
def _find_or_make(core: client.CoreV1Api, namespace: str, spec: VolumeSpec) -> tuple[Any, bool]:
    """Return the claim and whether it is new; another writer at the same time (409) only leads to another look."""
    with api_call("get", _CLAIMS, namespace):
        try:
            return core.read_namespaced_persistent_volume_claim(spec.name, namespace), False
        except client.ApiException as error:
            if error.status != 404:
                raise
    with api_call("create", _CLAIMS, namespace):
        return core.create_namespaced_persistent_volume_claim(namespace, _claim_of(spec)), True


def _claim_of(spec: VolumeSpec) -> client.V1PersistentVolumeClaim:
    return client.V1PersistentVolumeClaim(
        metadata=client.V1ObjectMeta(name=spec.name, labels=dict(MANAGED_BY)),
        spec=client.V1PersistentVolumeClaimSpec(
            access_modes=list(spec.access_modes),
            resources=client.V1VolumeResourceRequirements(requests={"storage": spec.size}),
            storage_class_name=spec.storage_class or None,
        ),
    )


def _refuse_unfit(claim: Any, spec: VolumeSpec) -> None:
    """Refuse a claim that is not the one asked for, with every difference.

    Raises:
        UserError: If the claim is not ours, is being deleted, or differs in what the steps rely on.

    """
    problems: list[Problem] = []
    where = f"volume {spec.name} in namespace {claim.metadata.namespace}"
    delete = f"kubectl -n {claim.metadata.namespace} delete pvc {spec.name}"
    if not made_by_us(claim.metadata.labels):
        allowed = f"a claim of this library (label {'='.join(*MANAGED_BY.items())})"
        mend = "Choose another name, or use the claim as it is with create=False."
        problems.append(Problem(where, "a claim that something else made", allowed, mend))
    if claim.metadata.deletion_timestamp:
        mend = "Wait until the pods that use it have ended (kubectl describe pvc names them), or choose another name."
        problems.append(Problem(where, "a claim that is being deleted", "one that stays", mend))
    size = _size_of(claim)
    if bytes_of(size) < bytes_of(spec.size):
        mend = f"Ask for at most {size}, let the claim be expanded, or choose another name."
        problems.append(Problem(f"size of {where}", size, f"{spec.size} or more, as asked for", mend))
    missing = set(spec.access_modes) - _served_modes(claim)
    if missing:
        mend = f"Ask for a mode that it has, choose another name, or delete it with all its data ({delete})."
        allowed = f"one with {', '.join(sorted(missing))}, as asked for"
        problems.append(Problem(f"access_mode of {where}", ", ".join(claim.spec.access_modes), allowed, mend))
    storage_class = claim.spec.storage_class_name or ""
    if spec.storage_class and storage_class != spec.storage_class:
        mend = f"Ask for that class or for none, choose another name, or delete it with all its data ({delete})."
        given = storage_class or "no class"
        problems.append(Problem(f"storage_class of {where}", given, f"{spec.storage_class}, as asked for", mend))
    if problems:
        raise UserError(problems)


def _size_of(claim: Any) -> str:
    """Return the larger of requested and real size: an expansion may end only when a pod mounts the claim."""
    requested = claim.spec.resources.requests["storage"]
    return max(requested, (claim.status.capacity or {}).get("storage", requested), key=bytes_of)


def _served_modes(claim: Any) -> set[str]:
    modes = set(claim.spec.access_modes)
    return modes | {"ReadWriteOnce"} if "ReadWriteMany" in modes else modes


def _taken_back(core: client.CoreV1Api, claim: Any, error: UserError) -> UserError:
    """Delete a claim that this call made in vain; return the error that also says what became of it."""
    name, namespace = claim.metadata.name, claim.metadata.namespace
    precondition = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=claim.metadata.uid))
    try:
        with api_call("delete", _CLAIMS, namespace):
            core.delete_namespaced_persistent_volume_claim(name, namespace, body=precondition)
        ending = "The claim was deleted again."
    except (client.ApiException, UserError):
        ending = f"Before the next run, delete the claim: kubectl -n {namespace} delete pvc {name}"
    return UserError([replace(problem, mend=f"{problem.mend} {ending}") for problem in error.problems])
