"""The KFP component that deletes the volume of a pipeline."""

from kfp import dsl

from kfp_finetune.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def delete_volume(name: str, keep: bool = True) -> None:
    """Delete the volume that create_volume made, with all its data, unless it is to be kept.

    A volume that something else made is never deleted, and one that is not there is fine.

    Args:
        name: Name of the volume (a PersistentVolumeClaim) in the run's namespace.
        keep: Whether to keep the volume; then nothing is called. Default true.

    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.delete_volume.volume import remove_volume

        remove_volume(name, keep)
