"""The KFP component that creates the volume of a pipeline."""

from kfp import dsl

from kfp_finetune.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def create_volume(
    name: str,
    size: str = "50Gi",
    access_mode: str = "ReadWriteOnce",
    storage_class: str = "",
    create: bool = True,
    wait_seconds: int = 300,
    prepare: bool = False,
    image: str = "",
) -> str:
    """Create the volume on which a pipeline keeps datasets, models and trainings, or find it again.

    Args:
        name: Name of the volume (a PersistentVolumeClaim) in the run's namespace: lower-case letters, digits and '-',
            at most 63 characters.
        size: Smallest size with its unit, such as "50Gi". Default "50Gi".
        access_mode: "ReadWriteOnce" for training on one node, "ReadWriteMany" for more nodes. Default "ReadWriteOnce".
        storage_class: Storage class that makes the volume; empty for the cluster's default class. Default empty.
        create: Whether to create the volume; if not, it is taken as it is and, without prepare, nothing is called: for
            a volume of your own and for runs without a cluster. Default true.
        wait_seconds: Longest wait for the volume's storage, and as long again for the pod that prepares it, in
            seconds, 1 to 86400. Default 300.
        prepare: Whether to make the volume writable for group 0, which the images run in, with a short pod; for
            volumes that only root may write to. Default false.
        image: Image of that pod, one of this library's; empty for the published image of the steps. Default empty.

    Returns:
        The name of the volume.

    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.create_volume.volume import VolumeSpec, ensure_volume

        spec = VolumeSpec(name, size, (access_mode,), storage_class, wait_seconds)
        volume = ensure_volume(spec, create, prepare, image)
    return volume
