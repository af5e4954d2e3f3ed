"""The KFP component that ends what a run still holds."""

from kfp import dsl

from kfp_finetune.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def clean_up(run: str, launcher: str, volume: str, keep_volume: bool = True):
    """Stops what a run still trains, and deletes its volume unless it is to be kept: the exit task of a pipeline.

    KFP runs an exit task also after a failure and after a termination. A training that another run waits for too is
    left to it, and a volume that something else made is left alone.

    Args:
        run: Id of the pipeline run, as torchtune_trainjob got it (dsl.PIPELINE_JOB_ID_PLACEHOLDER).
        launcher: "trainjob" if there may be a TrainJob to stop; with "process" there is none.
        volume: PersistentVolumeClaim that create_volume made.
        keep_volume: Whether to keep the volume.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.clean_up.leftovers import stop_trainings
        from kfp_finetune.components.delete_volume.volume import remove_volume

        try:
            stop_trainings(run, launcher)
        finally:
            remove_volume(volume, keep_volume)
