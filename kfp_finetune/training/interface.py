"""What the KFP interfaces of the rooms that train have in common."""

from kfp import dsl

PASSED_THROUGH = [
    # The step, too, needs the version that it was compiled from.
    dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True)
] + [
    dsl.TaskConfigPassthrough(field=field, apply_to_task=False)
    for field in (
        dsl.TaskConfigField.RESOURCES,
        dsl.TaskConfigField.KUBERNETES_AFFINITY,
        dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
        dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
        dsl.TaskConfigField.KUBERNETES_VOLUMES,
    )
]
"""What is set on a task and meant for the training pods: the step that waits asks for no GPU and mounts nothing."""
