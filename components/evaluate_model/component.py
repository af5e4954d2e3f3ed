"""The step's KFP interface."""

from kfp import dsl

from kfp_finetune.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def evaluate_model(
    training_plan: dsl.Input[dsl.Artifact],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    trained: str = "",
    workspace: str = "/workspace",
) -> float:
    """Compares the tuned model with its base on rows that were never trained on, and on the tasks that plan took up.

    Args:
        training_plan: From plan; the training must have an epoch.
        evaluation: All of it as JSON: losses, perplexities, figures of tasks, answers.
        metrics: Held-out loss and perplexity, or rewards of pairs, before and after, and figures of tasks.
        report: The whole run on one page: losses, a few answers side by side, the training's curves.
        trained: From the step that trained; it only makes this step wait for that one.
        workspace: Where the volume is mounted.

    Returns:
        By how much the held-out loss fell, in nats a token, or a pair.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.evaluate_model.evaluate import evaluate
        from kfp_finetune.components.evaluate_model.record import record_evaluation
        from kfp_finetune.training.record import recall_plan

        plan = recall_plan(training_plan)
        return record_evaluation(plan, evaluate(plan, workspace), evaluation, metrics, report, workspace)
