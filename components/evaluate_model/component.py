"""The step's KFP interface."""

from kfp import dsl

from kfp_finetune.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def evaluate_model(
    training_plan: dsl.Input[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    trained: str = "",
    workspace: str = "/workspace",
) -> float:
    """Compares the tuned model with its base on rows that were never trained on.

    Args:
        training_plan: From plan; the training must have an epoch.
        metrics: Held-out loss before and after, and their difference.
        report: The whole run on one page: losses, a few answers side by side, the training's curves.
        trained: From the step that trained; it only makes this step wait for that one.
        workspace: Where the volume is mounted.

    Returns:
        By how much the held-out loss fell, in nats a token.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.evaluate_model.evaluate import evaluate
        from kfp_finetune.components.evaluate_model.record import record_evaluation
        from kfp_finetune.training.record import recall_plan

        plan = recall_plan(training_plan)
        return record_evaluation(plan, evaluate(plan, workspace), metrics, report, workspace)
