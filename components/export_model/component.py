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
    publish_to: str = "",
    workspace: str = "/workspace",
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
        publish_to: Where the model is published too: hf://ORGANISATION/NAME[@BRANCH] or s3://BUCKET/PREFIX, or several.
        workspace: Where the volume is mounted.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.export_model.export import export
        from kfp_finetune.components.export_model.publish.run import publish_export
        from kfp_finetune.components.export_model.record import record_export
        from kfp_finetune.training.record import recall_plan

        plan = recall_plan(training_plan)
        manifest = export(plan, name, workspace, keep_runs, gate)
        published = publish_export(manifest, publish_to, workspace)
        record_export(plan, manifest, published, model, report, workspace)
