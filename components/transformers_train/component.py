"""The two steps' KFP interfaces."""

from kfp import dsl

from kfp_finetune.images import STEPS_IMAGE, TRAIN_IMAGE
from kfp_finetune.training.interface import PASSED_THROUGH


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def plan(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    training_plan: dsl.Output[dsl.Artifact],
    data_report: dsl.Output[dsl.HTML],
    transformer_type: str,
    name: str = "finetune",
    num_labels: int = 0,
    epochs: int = 1,
    learning_rate: float = 0.0,
    batch_size: int = 8,
    gradient_accumulation_steps: int = 1,
    max_seq_len: int = 0,
    dtype: str = "bf16",
    strategy: str = "ddp",
    training_arguments: dict = {},  # noqa: B006  KFP takes the default from here
    lora_config: dict = {},  # noqa: B006
    column_map: dict = {},  # noqa: B006
    split: str = "train",
    held_out: str = "5%",
    advanced: dict = {},  # noqa: B006
    num_workers: int = 1,
    num_procs_per_worker: int = 1,
    resources_per_worker: dict = {},  # noqa: B006
    launcher: str = "process",
    runtime: str = "torch-distributed",
    volume: str = "",
    trainjob: dict = {},  # noqa: B006
    skip_unchanged: bool = True,
    gate: dict = {},  # noqa: B006
    export: dict = {},  # noqa: B006
    publish_to: str = "",
    ui_host: str = "",
    workspace: str = "/workspace",
) -> bool:
    """Checks everything before a GPU is asked for, and turns rows into what the model reads.

    Args:
        dataset: From initialize_dataset.
        model: From initialize_model.
        training_plan: What the next steps need to know.
        data_report: Token lengths by the model's own tokenizer, the share cut off, the labels, a few rows.
        transformer_type: What the model is trained for: AutoModelForSequenceClassification, AutoModelForCausalLM, ...
        name: The series that the export belongs to; latest/NAME points to the newest.
        num_labels: How many labels the model is to tell apart; 0 for those of the rows to train on.
        epochs: Passes over the training rows.
        learning_rate: Peak of the schedule; 0 means 5e-5, and 2e-4 with LoRA.
        batch_size: Rows in a batch on each process.
        gradient_accumulation_steps: Batches before each update of the weights.
        max_seq_len: Tokens after which a row is cut; 0 means 512, or as many as the model can read if fewer.
        dtype: "bf16" computes in bf16 with weights in fp32, "fp32" all in fp32.
        strategy: "ddp" has the whole model on each process, "fsdp" shares it out.
        training_arguments: Any other of transformers' TrainingArguments: {"weight_decay": 0.01, "warmup_steps": 100}.
        lora_config: peft's LoraConfig, for an adapter and not the weights: {"r": 8, "lora_alpha": 16}; empty for none.
        column_map: Columns of other names: {"text": "review", "label": "stars"}.
        split: The rows to train on: a split's name or a part of one, such as "train[:3000]".
        held_out: The rows to evaluate on: a share of the split ("5%") or another split ("test").
        advanced: Settings without a parameter of their own: {"seed": 7, "export_checkpoint": "best"}.
        num_workers: Machines; more than one only with the launcher trainjob.
        num_procs_per_worker: Training processes on each machine, one for each GPU.
        resources_per_worker: For trainjob, what each machine's pod asks for: {"gpu": 2, "cpu": 5, "memory": "10G"}.
        launcher: "process" trains in the next step's own pod, "trainjob" as a TrainJob of Kubeflow Trainer.
        runtime: For trainjob: the training runtime.
        volume: For trainjob: the PersistentVolumeClaim on which all this lies.
        trainjob: For trainjob: the training pods and the bounds on them, as transformers_trainjob takes them.
        skip_unchanged: For a model that is a series' newest export: whether it stays that while nothing else changes.
        gate: Bounds that export_model will hold the figures of the held-out rows to: {"min_improvement": 0.1}.
        export: How large export_model's files are, and a quantised copy: {"max_shard_size": "5GB", "quantize": "int8"}.
        publish_to: Where export_model will publish the model: hf://ORGANISATION/NAME[@BRANCH], s3://BUCKET/PREFIX,
            registry+http://HOST:PORT/NAME.
        ui_host: Address of the Kubeflow Pipelines UI, for export_model; it is only checked here.
        workspace: Where the volume is mounted.

    Returns:
        Whether there is anything to do: False if this training is exported and the newest of its series.
    """
    from kfp_finetune.errors import clear_errors

    settings = dict(
        transformer_type=transformer_type, num_labels=num_labels, epochs=epochs, learning_rate=learning_rate,
        batch_size=batch_size, gradient_accumulation_steps=gradient_accumulation_steps, max_seq_len=max_seq_len,
        dtype=dtype, strategy=strategy, training_arguments=training_arguments, lora_config=lora_config,
        column_map=column_map, split=split, held_out=held_out, advanced=advanced, num_workers=num_workers,
        num_procs_per_worker=num_procs_per_worker,
    )  # fmt: skip
    with clear_errors():
        from kfp_finetune.artifacts import recall_manifest
        from kfp_finetune.components.export_model.planned import plan_export
        from kfp_finetune.components.export_model.publish.run import check_publishing
        from kfp_finetune.components.export_model.this_run import ThisRun
        from kfp_finetune.components.transformers_train.place import check_place
        from kfp_finetune.components.transformers_train.planning import make_plan
        from kfp_finetune.components.transformers_train.tasks.table import known_figures
        from kfp_finetune.training.gate import check_gate
        from kfp_finetune.training.planning import Asked
        from kfp_finetune.training.record import record_plan

        place = (num_workers, num_procs_per_worker, resources_per_worker)
        addresses, problems = check_publishing(publish_to, workspace, ThisRun(ui_host=ui_host, volume=volume))
        problems += check_place(launcher, runtime, volume, trainjob, workspace, *place)
        problems += check_gate(gate, known_figures(transformer_type))
        data, base = recall_manifest(dataset), recall_manifest(model)
        exporting, of_export = plan_export(export, base, workspace, transformer_type)
        problems += of_export
        asked = Asked(gate=gate, export=exporting, publish_to=addresses)
        outcome = make_plan(data, base, name, settings, workspace, problems, skip_unchanged, asked)
        return record_plan(outcome, training_plan, data_report, workspace)


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def transformers_train(
    training_plan: dsl.Input[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    workspace: str = "/workspace",
) -> str:
    """Trains what was planned in this step's own pod, going on from the newest whole epoch if there is one.

    Args:
        training_plan: From plan.
        metrics: Final loss, the figures of the held-out rows, tokens per second, peak memory.
        report: Loss, learning rate and speed over the steps.
        summary: The training in a table.
        workspace: Where the volume is mounted.

    Returns:
        The training's key.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.transformers_train.train import train
        from kfp_finetune.training.record import recall_plan, record_training

        plan = recall_plan(training_plan)
        return record_training(plan, train(plan, workspace), metrics, report, summary, workspace)


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False, task_config_passthroughs=PASSED_THROUGH)
def transformers_trainjob(
    training_plan: dsl.Input[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    volume: str,
    image: str,
    run: str,
    runtime: str = "torch-distributed",
    accelerator: str = "nvidia.com/gpu",
    resources_per_worker: dict = {},  # noqa: B006
    trainjob: dict = {},  # noqa: B006
    task_config: dsl.TaskConfig = None,
) -> str:
    """Trains what was planned as a TrainJob of Kubeflow Trainer on any number of nodes, and waits for it.

    Resources, environment variables, volumes, node selectors, tolerations and affinity that are set on this task reach
    the training pods; the step itself needs none of them.

    Args:
        training_plan: From plan.
        metrics: Final loss, the figures of the held-out rows, tokens per second, peak memory.
        report: Loss and speed over the steps.
        summary: The training in a table.
        volume: PersistentVolumeClaim with the workspace; on more than one node it must be ReadWriteMany.
        image: Image of the training pods.
        run: Id of the pipeline run, by which clean_up finds the job (dsl.PIPELINE_JOB_ID_PLACEHOLDER).
        runtime: Training runtime of Kubeflow Trainer: torch-distributed, kfp-finetune, or any other for torch.
        accelerator: Kubernetes resource name of the GPUs; empty to train on CPUs.
        resources_per_worker: What each machine's pod asks for: {"gpu": 2, "cpu": 5, "memory": "10G"}.
        trainjob: The training pods and the bounds on them: node_selector, tolerations, queue, ...
        task_config: Filled in by KFP with what is set on this task.

    Returns:
        The training's key.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.transformers_train.place import read_place
        from kfp_finetune.components.transformers_train.train import WORKER
        from kfp_finetune.training.cluster import Outcome, train_on_cluster
        from kfp_finetune.training.record import recall_plan, recall_summary, record_outcome

        plan, finished = recall_plan(training_plan), recall_summary(training_plan)
        request = read_place(runtime, image, volume, accelerator, resources_per_worker, trainjob, task_config)
        outcome = Outcome(finished) if finished else train_on_cluster(plan, WORKER, request, run)
        return record_outcome(plan, outcome, metrics, report, summary)
