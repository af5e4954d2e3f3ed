"""The two steps' KFP interfaces."""

from kfp import dsl

from kfp_finetune.images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def plan(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    training_plan: dsl.Output[dsl.Artifact],
    data_report: dsl.Output[dsl.HTML],
    name: str = "finetune",
    method: str = "lora",
    epochs: int = 1,
    learning_rate: float = 0.0,
    batch_size: int = 2,
    gradient_accumulation_steps: int = 1,
    max_seq_len: int = 0,
    packed: bool = False,
    lora_rank: int = 8,
    dtype: str = "bf16",
    num_procs_per_node: int = 1,
    dataset_type: str = "auto",
    column_map: dict = {},  # noqa: B006  KFP takes the default from here
    train_on_input: bool = False,
    new_system_prompt: str = "",
    split: str = "train",
    held_out: str = "5%",
    advanced: dict = {},  # noqa: B006
    overrides: dict = {},  # noqa: B006
    workspace: str = "/workspace",
) -> bool:
    """Checks everything before a GPU is asked for, turns rows into tokens and writes the training's configuration.

    Args:
        dataset: From initialize_dataset.
        model: From initialize_model.
        training_plan: What the next steps need to know.
        data_report: Token lengths by the model's own tokenizer, the share cut off, a few rows.
        name: The series that the export belongs to; latest/NAME points to the newest.
        method: "full" trains every weight, "lora" and "dora" an adapter, "qlora" and "qdora" one beside 4-bit weights.
        epochs: Passes over the training rows.
        learning_rate: Peak of the schedule; 0 means 2e-5 for full and 3e-4 for adapters.
        batch_size: Rows in a batch on each GPU.
        gradient_accumulation_steps: Batches before each update of the weights.
        max_seq_len: Tokens after which a row is cut; 0 means 2048, or as many as the model can read if fewer.
        packed: Whether short rows share one sequence of max_seq_len tokens, each attending to itself alone.
        lora_rank: Rank of the adapter's matrices.
        dtype: "bf16" or "fp32".
        num_procs_per_node: Training processes, one for each GPU.
        dataset_type: "instruct" (prompt and answer), "chat" (messages), "completion" (text), or "auto" by the columns.
        column_map: Columns of other names: {"input": "question", "output": "answer"}, {"messages": ...}, {"text": ...}.
        train_on_input: Whether the prompts' tokens count in the loss too.
        new_system_prompt: A system message put before every row that has none; empty for none.
        split: The rows to train on: a split's name or a part of one, such as "train[:10%]".
        held_out: The rows to evaluate on: a share of the split ("5%") or another split ("test").
        advanced: Settings without a parameter of their own: {"weight_decay": 0.1, "lora_alpha": 32}.
        overrides: Any other key of torchtune's configuration: {"optimizer.betas": [0.9, 0.95]}.
        workspace: Where the volume is mounted.

    Returns:
        Whether there is anything to do: False if this training is exported and the newest of its series.
    """
    from kfp_finetune.artifacts import recall_manifest
    from kfp_finetune.components.torchtune_train.plan import make_plan
    from kfp_finetune.components.torchtune_train.record import record_plan
    from kfp_finetune.errors import clear_errors

    settings = dict(
        method=method, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps, max_seq_len=max_seq_len, packed=packed,
        lora_rank=lora_rank, dtype=dtype, num_procs_per_node=num_procs_per_node, dataset_type=dataset_type,
        column_map=column_map, train_on_input=train_on_input, new_system_prompt=new_system_prompt, split=split,
        held_out=held_out, advanced=advanced, overrides=overrides,
    )  # fmt: skip
    with clear_errors():
        outcome = make_plan(recall_manifest(dataset), recall_manifest(model), name, settings, workspace)
        return record_plan(outcome, training_plan, data_report, workspace)


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def torchtune_train(
    training_plan: dsl.Input[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    workspace: str = "/workspace",
):
    """Trains what was planned, going on from the newest whole epoch if there is one.

    Args:
        training_plan: From plan.
        metrics: Final and best loss, tokens, tokens per second, peak memory.
        report: Loss, learning rate and speed over the steps.
        summary: The training in a table.
        workspace: Where the volume is mounted.
    """
    from kfp_finetune.components.torchtune_train.record import recall_plan, record_training
    from kfp_finetune.components.torchtune_train.train import train
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        plan = recall_plan(training_plan)
        record_training(plan, train(plan, workspace), metrics, report, summary, workspace)
