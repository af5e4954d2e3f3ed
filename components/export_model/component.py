"""The step's KFP interface."""

from kfp import dsl

from kfp_finetune.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def export_model(
    training_plan: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    trained: str = "",
    name: str = "finetune",
    keep_runs: int = 0,
    gate: dict = {},  # noqa: B006  KFP takes the default from here
    export: dict = {},  # noqa: B006
    publish_to: str = "",
    workspace: str = "/workspace",
    volume: str = "",
    run: str = "",
    ui_host: str = "",
    pipeline: str = "",
):
    """Publishes the newest or best epoch as a model that transformers loads, verified before anybody sees it.

    Args:
        training_plan: From plan; the training must have an epoch.
        model: The export's manifest: where it lies, its files' sizes and checksums.
        report: The whole run on one page: the held-out rows before and after, the training's curves.
        trained: From the step that trained; it only makes this step wait for that one.
        name: The series; latest/NAME points to the export afterwards.
        keep_runs: How many trainings and exports of the series to keep on the volume, with this one; 0 for all.
        gate: Bounds for the figures of the held-out rows, without which nothing is exported: {"min_improvement": 0.1}.
        export: Sizes of the files and a quantised copy: {"max_shard_size": "5GB", "quantize": "int8"}.
        publish_to: Where the model is published too: hf://ORGANISATION/NAME[@BRANCH], s3://BUCKET/PREFIX or
            registry+http://HOST:PORT/NAME, or several.
        workspace: Where the volume is mounted.
        volume: The PersistentVolumeClaim, of which a registry is told if the model is published nowhere else.
        run: Id of the run, for the model card and registries.
        ui_host: Address of the Kubeflow Pipelines UI, for the link to the run there.
        pipeline: Name of the pipeline, for registries.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.export_model.export import export as export_training
        from kfp_finetune.components.export_model.publish.run import publish_export
        from kfp_finetune.components.export_model.record import record_export
        from kfp_finetune.components.export_model.this_run import ThisRun
        from kfp_finetune.training.record import recall_plan

        plan = recall_plan(training_plan)
        this_run = ThisRun(run, ui_host, pipeline, volume)
        manifest = export_training(plan, name, workspace, keep_runs, gate, this_run.page or run, export)
        published = publish_export(manifest, publish_to, workspace, plan, this_run)
        record_export(plan, manifest, published, model, report, workspace)
