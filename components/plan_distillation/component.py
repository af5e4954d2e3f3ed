"""The step's KFP interface."""

from kfp import dsl

from kfp_finetune.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def plan_distillation(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    teacher: dsl.Input[dsl.Model],
    training_plan: dsl.Output[dsl.Artifact],
    data_report: dsl.Output[dsl.HTML],
    name: str = "distillation",
    method: str = "lora",
    epochs: int = 1,
    learning_rate: float = 0.0,
    batch_size: int = 0,
    gradient_accumulation_steps: int = 1,
    max_seq_len: int = 0,
    packed: bool = False,
    lora_rank: int = 8,
    dtype: str = "bf16",
    kd_ratio: float = 0.5,
    num_procs_per_node: int = 1,
    num_nodes: int = 1,
    launcher: str = "process",
    runtime: str = "torch-distributed",
    volume: str = "",
    trainjob: dict = {},  # noqa: B006
    dataset_type: str = "auto",
    column_map: dict = {},  # noqa: B006  KFP takes the default from here
    train_on_input: bool = False,
    new_system_prompt: str = "",
    split: str = "train",
    held_out: str = "5%",
    advanced: dict = {},  # noqa: B006
    overrides: dict = {},  # noqa: B006
    skip_unchanged: bool = True,
    evaluation: dict = {},  # noqa: B006
    gate: dict = {},  # noqa: B006
    export: dict = {},  # noqa: B006
    publish_to: str = "",
    ui_host: str = "",
    workspace: str = "/workspace",
) -> bool:
    """Checks everything before a GPU is asked for, turns rows into tokens and writes the training's configuration.

    Args:
        dataset: From initialize_dataset.
        model: From initialize_model: the one that learns.
        teacher: From initialize_model: the one that it learns from.
        training_plan: What the next steps need to know.
        data_report: Token lengths by the model's own tokenizer, the share cut off, a few rows.
        name: The series that the export belongs to; latest/NAME points to the newest.
        method: "full" trains every weight, "lora" and "dora" an adapter, "qlora" and "qdora" one beside 4-bit weights.
        epochs: Passes over the training rows.
        learning_rate: Peak of the schedule; 0 means 3e-4 for adapters and 2e-5 to 4e-5, by rows an update, for full.
        batch_size: Rows in a batch on each GPU; 0 means 8, fewer of a small dataset, as many at once as memory holds.
        gradient_accumulation_steps: Batches before each update of the weights.
        max_seq_len: Tokens after which a row is cut; 0 means 2048, or as many as the model can read if fewer.
        packed: Whether short rows share one sequence of max_seq_len tokens, each attending to itself alone.
        lora_rank: Rank of the adapter's matrices.
        dtype: "bf16" or "fp32".
        kd_ratio: Weight of what the teacher says, above 0, to 1; the rest is that of the rows' own answers.
        num_procs_per_node: Training processes on each node, one for each GPU.
        num_nodes: Machines; more than one only with the launcher trainjob.
        launcher: "process" trains in the next step's own pod, "trainjob" as a TrainJob of Kubeflow Trainer.
        runtime: For trainjob: the training runtime.
        volume: For trainjob: the PersistentVolumeClaim on which all this lies.
        trainjob: For trainjob: the training pods and the bounds on them, as torchtune_trainjob takes them.
        dataset_type: "instruct" (prompt and answer), "chat" (messages), "completion" (text), or "auto" by the columns.
        column_map: Columns of other names: {"input": "question", "output": "answer"}, {"messages": ...}, {"text": ...}.
        train_on_input: Whether the prompts' tokens count in the loss too.
        new_system_prompt: A system message put before every row that has none; empty for none.
        split: The rows to train on: a split's name or a part of one, such as "train[:10%]".
        held_out: The rows to evaluate on: a share of the split ("5%") or another split ("test").
        advanced: Settings without a parameter of their own: {"weight_decay": 0.1, "lora_alpha": 32}.
        overrides: Any other key of torchtune's configuration: {"optimizer.betas": [0.9, 0.95]}.
        skip_unchanged: For a model that is a series' newest export: whether it stays that while nothing else changes.
        evaluation: Tasks of lm-evaluation-harness for evaluate_model; their data is fetched here: {"tasks": [...]}.
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
        method=method, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps, max_seq_len=max_seq_len, packed=packed,
        lora_rank=lora_rank, dtype=dtype, kd_ratio=kd_ratio, num_procs_per_node=num_procs_per_node, num_nodes=num_nodes,
        dataset_type=dataset_type, column_map=column_map, train_on_input=train_on_input,
        new_system_prompt=new_system_prompt, split=split, held_out=held_out, advanced=advanced, overrides=overrides,
    )  # fmt: skip
    with clear_errors():
        from kfp_finetune.artifacts import recall_manifest
        from kfp_finetune.components.export_model.this_run import ThisRun
        from kfp_finetune.components.plan_distillation.planning import make_plan
        from kfp_finetune.components.torchtune_train.asked import check_asked
        from kfp_finetune.training.gate import OF_EVERY_TRAINING
        from kfp_finetune.training.launcher import check_launcher
        from kfp_finetune.training.record import record_plan

        data, base = recall_manifest(dataset), recall_manifest(model)
        this_run = ThisRun(ui_host=ui_host, volume=volume)
        asked, problems = check_asked(
            base, OF_EVERY_TRAINING, evaluation, gate, export, publish_to, this_run, workspace
        )
        problems += check_launcher(launcher, runtime, volume, num_nodes, trainjob, workspace)
        above = recall_manifest(teacher)
        outcome = make_plan(data, base, above, name, settings, workspace, problems, skip_unchanged, asked)
        return record_plan(outcome, training_plan, data_report, workspace)
