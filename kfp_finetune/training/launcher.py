"""Where a training runs: in the step's own pod, or as a TrainJob."""

from typing import Any

from kfp_finetune.errors import Problem
from kfp_finetune.workspace import MOUNT_PATH

LAUNCHERS = ("process", "trainjob")


def check_launcher(
    launcher: str, runtime: str, volume: str, num_nodes: int, trainjob: Any, workspace: str, nodes: str = "num_nodes"
) -> list[Problem]:
    """What is wrong with where a training is to run, found before a GPU is asked for.

    Args:
        launcher: "process" or "trainjob".
        runtime: The training runtime.
        volume: PersistentVolumeClaim with the workspace.
        num_nodes: Machines.
        trainjob: What the user gave for the training pods.
        workspace: Where the volume is mounted.
        nodes: The parameter that says how many machines.
    """
    problems = check_place(launcher, num_nodes, workspace, nodes)
    if launcher == "trainjob":
        from kfp_finetune.training.cluster import check_cluster

        return [*check_cluster(runtime, volume, num_nodes, trainjob, nodes), *problems]
    return problems


def check_place(launcher: str, num_nodes: int, workspace: str, nodes: str = "num_nodes") -> list[Problem]:
    """What is wrong with where a training is to run, as far as it can be told without a cluster.

    Args:
        launcher: "process" or "trainjob".
        num_nodes: Machines.
        workspace: Where the volume is mounted.
        nodes: The parameter that says how many machines.
    """
    if launcher not in LAUNCHERS:
        return [Problem("launcher", repr(launcher), " or ".join(LAUNCHERS), "Correct launcher and run again.")]
    if launcher == "trainjob" and workspace != MOUNT_PATH:
        allowed = f"{MOUNT_PATH} with launcher trainjob, where the training pods mount the volume"
        return [Problem("workspace", workspace, allowed, f"Set workspace to {MOUNT_PATH}.")]
    if launcher == "process" and num_nodes > 1:
        mend = f"Set launcher to trainjob, or {nodes} to 1."
        return [Problem(nodes, f"{num_nodes}, with launcher process", "1 in a step's own pod", mend)]
    return []
