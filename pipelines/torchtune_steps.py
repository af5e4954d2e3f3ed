"""The steps that every pipeline of torchtune's has behind its plan: train here or on nodes, evaluate, export."""

from dataclasses import dataclass
from typing import Any

from kfp import dsl

from kfp_finetune.components.evaluate_model.component import evaluate_model
from kfp_finetune.components.export_model.component import export_model
from kfp_finetune.components.torchtune_train.component import torchtune_train, torchtune_trainjob
from kfp_finetune.pipelines.wiring import ask_for_gpus, share_memory


@dataclass(frozen=True)
class Place:
    """Where a training runs; each of these is a parameter of the pipeline or the output of a step.

    Args:
        launcher: "process" or "trainjob".
        volume: PersistentVolumeClaim with the workspace.
        workspace: Where it is mounted.
        num_procs_per_node: Training processes on each machine.
        accelerator: Kubernetes resource name of the GPUs.
        image: Of the training.
        runtime: For trainjob: the training runtime.
        trainjob: For trainjob: the training pods.
    """

    launcher: Any
    volume: Any
    workspace: Any
    num_procs_per_node: Any
    accelerator: Any
    image: Any
    runtime: Any
    trainjob: Any


@dataclass(frozen=True)
class Steps:
    """The steps behind a plan.

    Args:
        by_trainjob: Training on nodes of its own.
        loading: Those that load a model in their own pod: training, evaluation, export.
    """

    by_trainjob: Any
    loading: tuple[Any, Any, Any]

    @property
    def exported(self) -> Any:
        """The last step."""
        return self.loading[-1]


def train_and_export(planned: Any, place: Place, **export: Any) -> Steps:
    """Adds the steps, if the plan says that there is anything to do.

    Args:
        planned: The step that planned.
        place: Where the training runs.
        export: What export_model takes beside the plan and the place.
    """
    with dsl.If(planned.outputs["Output"] == True, name="needed"):  # noqa: E712  KFP builds the condition from ==
        training_plan = planned.outputs["training_plan"]
        with dsl.If(place.launcher == "trainjob", name="on nodes of their own"):
            by_trainjob = torchtune_trainjob(
                training_plan=training_plan,
                volume=place.volume,
                image=place.image,
                run=export["run"],
                runtime=place.runtime,
                accelerator=place.accelerator,
                trainjob=place.trainjob,
            )
        with dsl.Else(name="in one pod"):
            here = torchtune_train(training_plan=training_plan, workspace=place.workspace)
        trained = dsl.OneOf(by_trainjob.outputs["Output"], here.outputs["Output"])
        evaluated = evaluate_model(training_plan=training_plan, trained=trained, workspace=place.workspace)
        exported = export_model(training_plan=training_plan, workspace=place.workspace, volume=place.volume, **export)
        exported.after(evaluated)
        ask_for_gpus(here, place.accelerator, place.num_procs_per_node)
        ask_for_gpus(evaluated, place.accelerator, place.num_procs_per_node)
    share_memory((here, evaluated))
    return Steps(by_trainjob, (here, evaluated, exported))
