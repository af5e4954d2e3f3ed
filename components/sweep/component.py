"""The steps' KFP interfaces."""

from kfp import dsl

from kfp_finetune.images import STEPS_IMAGE, TRAIN_IMAGE
from kfp_finetune.training.interface import PASSED_THROUGH


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def plan_sweep(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    sweep: dsl.Output[dsl.Artifact],
    data_report: dsl.Output[dsl.HTML],
    search: dict,
    samples: int = 0,
    search_seed: int = 0,
    metric: str = "loss",
    direction: str = "auto",
    name: str = "finetune",
    method: str = "lora",
    epochs: int = 1,
    learning_rate: float = 0.0,
    batch_size: int = 0,
    gradient_accumulation_steps: int = 1,
    max_seq_len: int = 0,
    packed: bool = False,
    lora_rank: int = 8,
    dtype: str = "bf16",
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
    evaluation: dict = {},  # noqa: B006
    gate: dict = {},  # noqa: B006
    export: dict = {},  # noqa: B006
    publish_to: str = "",
    ui_host: str = "",
    max_parallel: int = 4,
    workspace: str = "/workspace",
) -> list[str]:
    """Checks every trial before a GPU is asked for, turns rows into tokens and writes the trials' configurations.

    Args:
        dataset: From initialize_dataset.
        model: From initialize_model.
        sweep: The trials, and what they are compared by.
        data_report: Token lengths by the model's own tokenizer, the share cut off, a few rows.
        search: Settings that vary, each with its choices or a range: {"learning_rate": [1e-4, 3e-4]},
            {"learning_rate": {"min": 1e-5, "max": 1e-3, "log": true}}.
        samples: How many combinations to draw; 0 for all of them, which a range does not have.
        search_seed: Of the draws.
        metric: What trials are compared by: "loss", or another figure of the evaluation that a gate can bound.
        direction: Whether the best trial has the "min" or "max" of it; "auto" tells by the figure's name.
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
        num_procs_per_node: Training processes on each node, one for each GPU.
        num_nodes: Machines; more than one only with the launcher trainjob.
        launcher: "process" trains in a pod of this run, "trainjob" as TrainJobs of Kubeflow Trainer.
        runtime: For trainjob: the training runtime.
        volume: For trainjob: the PersistentVolumeClaim on which all this lies.
        trainjob: For trainjob: the training pods and the bounds on them, as trial_trainjob takes them.
        dataset_type: "instruct" (prompt and answer), "chat" (messages), "completion" (text), or "auto" by the columns.
        column_map: Columns of other names: {"input": "question", "output": "answer"}, {"messages": ...}, {"text": ...}.
        train_on_input: Whether the prompts' tokens count in the loss too.
        new_system_prompt: A system message put before every row that has none; empty for none.
        split: The rows to train on: a split's name or a part of one, such as "train[:10%]".
        held_out: The rows to evaluate on: a share of the split ("5%") or another split ("test").
        advanced: Settings without a parameter of their own: {"weight_decay": 0.1, "lora_alpha": 32}.
        overrides: Any other key of torchtune's configuration: {"optimizer.betas": [0.9, 0.95]}.
        evaluation: Tasks of lm-evaluation-harness for evaluate_model; their data is fetched here: {"tasks": [...]}.
        gate: Bounds that export_model will hold the figures of the held-out rows to: {"min_improvement": 0.1}.
        export: How large export_model's files are, and a quantised copy: {"max_shard_size": "5GB", "quantize": "int8"}.
        publish_to: Where export_model will publish the model: hf://ORGANISATION/NAME[@BRANCH], s3://BUCKET/PREFIX,
            registry+http://HOST:PORT/NAME.
        ui_host: Address of the Kubeflow Pipelines UI, for export_model; it is only checked here.
        max_parallel: Trials that train at the same time, for the room that their checkpoints take on the volume.
        workspace: Where the volume is mounted.

    Returns:
        The trials that are to be run, each as JSON; those that were measured before are left out.
    """
    from kfp_finetune.errors import clear_errors

    settings = dict(
        method=method, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps, max_seq_len=max_seq_len, packed=packed,
        lora_rank=lora_rank, dtype=dtype, num_procs_per_node=num_procs_per_node, num_nodes=num_nodes,
        dataset_type=dataset_type, column_map=column_map, train_on_input=train_on_input,
        new_system_prompt=new_system_prompt, split=split, held_out=held_out, advanced=advanced, overrides=overrides,
    )  # fmt: skip
    with clear_errors():
        from kfp_finetune.artifacts import recall_manifest
        from kfp_finetune.components.evaluate_model.tasks import plan_tasks
        from kfp_finetune.components.export_model.planned import plan_export
        from kfp_finetune.components.export_model.publish.run import check_publishing
        from kfp_finetune.components.export_model.this_run import ThisRun
        from kfp_finetune.components.sweep.aim import read_aim
        from kfp_finetune.components.sweep.planning import plan_sweep as plan_trials
        from kfp_finetune.components.sweep.record import record_sweep
        from kfp_finetune.components.sweep.search import read_search
        from kfp_finetune.training.gate import OF_EVERY_TRAINING, check_gate, named_of_tasks
        from kfp_finetune.training.launcher import check_launcher
        from kfp_finetune.training.planning import Asked

        space, problems = read_search(search, samples, search_seed, advanced)
        addresses, of_places = check_publishing(publish_to, workspace, ThisRun(ui_host=ui_host, volume=volume))
        tasks, of_tasks = plan_tasks(evaluation, workspace)
        figures = (*named_of_tasks(gate), metric) if of_tasks else tasks.figures
        aim, of_aim = read_aim(metric, direction, (*OF_EVERY_TRAINING, *figures))
        problems += [*of_aim, *of_places, *of_tasks, *check_gate(gate, (*OF_EVERY_TRAINING, *figures))]
        problems += check_launcher(launcher, runtime, volume, num_nodes, trainjob, workspace)
        data, base = recall_manifest(dataset), recall_manifest(model)
        exporting, of_export = plan_export(export, base, workspace)
        problems += of_export
        asked = Asked(tasks.evaluation, gate, exporting, addresses)
        planned = plan_trials(data, base, name, settings, space, aim, workspace, problems, asked, max_parallel)
        return record_sweep(planned, sweep, data_report, workspace)


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def run_trial(
    trial: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    workspace: str = "/workspace",
) -> bool:
    """Trains and evaluates one trial in this step's own pod; one that fails is noted, and the others go on.

    Args:
        trial: From plan_sweep.
        metrics: The settings that vary, and the figures of the held-out rows.
        report: The trial on one page: losses, answers, the training's curves; or why it failed.
        workspace: Where the volume is mounted.

    Returns:
        Whether it succeeded.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.sweep.record import record_trial
        from kfp_finetune.components.sweep.running import run_trial as run_one
        from kfp_finetune.components.sweep.sweep import Trial

        one = Trial.from_json(trial)
        return record_trial(one, run_one(one, workspace), metrics, report, workspace)


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False, task_config_passthroughs=PASSED_THROUGH)
def trial_trainjob(
    trial: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    volume: str,
    image: str,
    run: str,
    runtime: str = "torch-distributed",
    accelerator: str = "nvidia.com/gpu",
    trainjob: dict = {},  # noqa: B006
    task_config: dsl.TaskConfig = None,
) -> str:
    """Trains one trial as a TrainJob of Kubeflow Trainer on any number of nodes, and waits for it.

    Args:
        trial: From plan_sweep.
        metrics: Final and best loss, tokens, tokens per second, peak memory.
        report: Loss and speed over the steps.
        summary: The training in a table.
        volume: PersistentVolumeClaim with the workspace; on more than one node it must be ReadWriteMany.
        image: Image of the training pods.
        run: Id of the pipeline run, by which clean_up finds the job (dsl.PIPELINE_JOB_ID_PLACEHOLDER).
        runtime: Training runtime of Kubeflow Trainer: torch-distributed, kfp-finetune, or any other for torch.
        accelerator: Kubernetes resource name of the GPUs; empty to train on CPUs.
        trainjob: The training pods and the bounds on them: cpu, memory, node_selector, tolerations, queue, ...
        task_config: Filled in by KFP with what is set on this task.

    Returns:
        Why the training came to nothing; empty if it is finished.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.sweep.on_cluster import train_trial
        from kfp_finetune.components.sweep.sweep import Trial
        from kfp_finetune.training.cluster import read_request
        from kfp_finetune.training.record import record_outcome

        one = Trial.from_json(trial)
        request = read_request(runtime, image, volume, accelerator, trainjob, task_config)
        outcome, failure = train_trial(one, request, run)
        record_outcome(one.plan, outcome, metrics, report, summary)
        return failure


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def evaluate_trial(
    trial: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    failure: str = "",
    workspace: str = "/workspace",
) -> bool:
    """Evaluates one trial that was trained as a TrainJob, or notes that it failed.

    Args:
        trial: From plan_sweep.
        metrics: The settings that vary, and the figures of the held-out rows.
        report: The trial on one page: losses, answers, the training's curves; or why it failed.
        failure: From trial_trainjob.
        workspace: Where the volume is mounted.

    Returns:
        Whether it succeeded.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.sweep.record import record_trial
        from kfp_finetune.components.sweep.running import evaluate_trial as evaluate_one
        from kfp_finetune.components.sweep.sweep import Trial

        one = Trial.from_json(trial)
        return record_trial(one, evaluate_one(one, failure, workspace), metrics, report, workspace)


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def choose_best(
    training_plan: dsl.Output[dsl.Artifact],
    comparison: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    sweep: dsl.Input[dsl.Artifact] = None,
    keep_trials: bool = False,
    workspace: str = "/workspace",
):
    """Chooses the best of the trials that succeeded, and compares them all on one page.

    Args:
        training_plan: The plan of the best, for evaluate_model and export_model.
        comparison: All trials with their settings, figures and failures, as JSON.
        metrics: The best figure and settings, and how many trials there were and failed.
        report: The page that compares the trials.
        sweep: From plan_sweep.
        keep_trials: Whether to keep the models of the trials that were not chosen; their figures stay in any case.
        workspace: Where the volume is mounted.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.sweep.choice import choose_best as choose
        from kfp_finetune.components.sweep.record import recall_sweep, record_choice

        found = choose(recall_sweep(sweep), workspace, keep_trials)
        record_choice(found, training_plan, comparison, metrics, report, workspace)
