"""Fine-tunes a model with many settings, and exports the best."""

from kfp import dsl

from kfp_finetune.components.clean_up.component import clean_up
from kfp_finetune.components.create_volume.component import create_volume as create_volume_step
from kfp_finetune.components.evaluate_model.component import evaluate_model
from kfp_finetune.components.export_model.component import export_model
from kfp_finetune.components.initialize_dataset.component import initialize_dataset
from kfp_finetune.components.initialize_model.component import initialize_model
from kfp_finetune.components.sweep.component import choose_best, evaluate_trial, plan_sweep, run_trial, trial_trainjob
from kfp_finetune.images import STEPS_IMAGE, TRAIN_IMAGE
from kfp_finetune.pipelines.parallel import MAX_PARALLEL
from kfp_finetune.pipelines.wiring import ask_for_gpus, give_secrets, mount_volume, settle, share_memory
from kfp_finetune.workspace import MOUNT_PATH


@dsl.pipeline(
    name="sweep",
    display_name="Fine-tune a model with many settings",
    description="Trains a model with TorchTune with each of many settings, compares them and exports the best.",
)
def sweep(
    model: str,
    dataset: str,
    search: dict,
    samples: int = 0,
    search_seed: int = 0,
    metric: str = "loss",
    direction: str = "auto",
    keep_trials: bool = False,
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
    dataset_type: str = "auto",
    column_map: dict = {},  # noqa: B006  KFP takes the default from here
    train_on_input: bool = False,
    new_system_prompt: str = "",
    split: str = "train",
    held_out: str = "5%",
    evaluation: dict = {},  # noqa: B006
    gate: dict = {},  # noqa: B006
    export: dict = {},  # noqa: B006
    publish_to: str = "",
    advanced: dict = {},  # noqa: B006
    overrides: dict = {},  # noqa: B006
    launcher: str = "process",
    num_nodes: int = 1,
    num_procs_per_node: int = 1,
    accelerator: str = "nvidia.com/gpu",
    runtime: str = "torch-distributed",
    trainjob: dict = {},  # noqa: B006
    dataset_config: str = "",
    reuse: bool = True,
    hf_secret: str = "hf",
    s3_secret: str = "s3",
    volume: str = "kfp-finetune",
    volume_size: str = "100Gi",
    access_mode: str = "ReadWriteOnce",
    storage_class: str = "",
    create_volume: bool = True,
    prepare_volume: bool = False,
    keep_volume: bool = True,
    keep_runs: int = 0,
    workspace: str = MOUNT_PATH,
    train_image: str = TRAIN_IMAGE,
    ui_host: str = "",
):
    """Trains a model with TorchTune with each of many settings, compares them and exports the best.

    Args:
        model: hf://ORGANISATION/NAME[@REVISION], s3://BUCKET/PREFIX or a folder (Llama, Qwen, Mistral, Gemma, Phi).
        dataset: A path, hf://ORGANISATION/NAME[@REVISION][/FOLDER] or s3://BUCKET/PREFIX; with /*.jsonl, some files.
        search: Settings to vary: {"learning_rate": [1e-4, 3e-4], "lora_rank": [8, 16]}, or with samples
            {"learning_rate": {"min": 1e-5, "max": 1e-3, "log": true}}.
        samples: How many combinations to draw at random; 0 for every one.
        search_seed: Seed of the draws; the same one draws the same.
        metric: What trials are compared by: "loss" of the held-out rows, or any figure that gate can bound.
        direction: "min" or "max" of metric is the best; "auto" tells by its name.
        keep_trials: Whether to keep the models of the trials that were not chosen; their figures stay in any case.
        name: Name of the series; latest/NAME on the volume points to its newest model.
        method: "full" trains every weight, "lora" and "dora" an adapter, "qlora" and "qdora" one beside 4-bit weights.
        epochs: Passes over the training rows.
        learning_rate: Peak of the schedule; 0 means 3e-4 for adapters and 2e-5 to 4e-5, by rows an update, for full.
        batch_size: Rows in a batch on each GPU; 0 means 8, fewer of a small dataset, as many at once as memory holds.
        gradient_accumulation_steps: Batches before each update of the weights.
        max_seq_len: Tokens after which a row is cut; 0 means 2048, or as many as the model can read if fewer.
        packed: Whether short rows share one sequence of max_seq_len tokens, each attending to itself alone.
        lora_rank: Rank of the adapter's matrices.
        dtype: "bf16" or "fp32".
        dataset_type: "instruct" (prompt and answer), "chat" (messages), "completion" (text), or "auto" by the columns.
        column_map: Columns of other names: {"input": "question", "output": "answer"}, {"messages": ...}, {"text": ...}.
        train_on_input: Whether the prompts' tokens count in the loss too.
        new_system_prompt: System message put before every row that has none; empty for none.
        split: Rows to train on: a split's name or a part of one, such as "train[:10%]".
        held_out: Rows to evaluate on, never trained on: a share of the split ("5%") or another split ("test").
        evaluation: Benchmarks of lm-evaluation-harness beside the held-out rows: {"tasks": ["arc_easy"], "limit": 200}.
        gate: Bounds on the held-out rows, without which nothing is exported: {"min_improvement": 0.1, "max_loss": 2}.
        export: Size of the model's files and a quantised copy: {"max_shard_size": "5GB", "quantize": "int8"}.
        publish_to: Where the model is published too: hf://ORGANISATION/NAME[@BRANCH], s3://BUCKET/PREFIX or a model in
            a Model Registry, registry+http://HOST:PORT/NAME; or several.
        advanced: Settings without a parameter of their own: {"weight_decay": 0.1, "lora_alpha": 32}.
        overrides: Any other key of torchtune's configuration: {"optimizer.betas": [0.9, 0.95]}.
        launcher: "process" trains in one pod of this run, "trainjob" on any number of nodes by Kubeflow Trainer.
        num_nodes: Machines to train on; more than one needs launcher trainjob and access_mode ReadWriteMany.
        num_procs_per_node: Training processes on each machine, one for each GPU.
        accelerator: Kubernetes resource name of the GPUs; empty to train on CPUs.
        runtime: Training runtime of Kubeflow Trainer, for launcher trainjob.
        trainjob: Training pods of launcher trainjob: {"memory": "64Gi", "node_selector": {...}, "queue": "team"}.
        dataset_config: Configuration (subset) of a dataset on the Hub; empty for its default one.
        reuse: Whether to take a dataset and a model that are on the volume already; false fetches them again.
        hf_secret: Secret with the Hub's "token", and "endpoint" if it is another server; it need not exist.
        s3_secret: Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the like; it need not exist.
        volume: PersistentVolumeClaim that holds datasets, models, trainings and exports.
        volume_size: Size of the volume if it is created.
        access_mode: Access mode of the volume if it is created: ReadWriteOnce, or ReadWriteMany for many nodes.
        storage_class: Storage class of the volume if it is created; empty for the cluster's default.
        create_volume: Whether to create the volume unless it is there; false for a volume of your own.
        prepare_volume: Whether to make the volume group-writable first, if its storage class gives it to root alone.
        keep_volume: Whether to keep the volume after the run; it is only ever deleted if the pipeline created it.
        keep_runs: How many trainings, exports, datasets and models of this series to keep on the volume; 0 for all.
        workspace: Where the volume is mounted; another folder only outside a cluster.
        train_image: Image of the steps that load a model: plan, train, evaluate, export.
        ui_host: Address of the Kubeflow Pipelines UI, for the run's link on the model card; the client fills it in.
    """
    run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    cleanup = clean_up(run=run, launcher=launcher, volume=volume, keep_volume=keep_volume)
    with dsl.ExitHandler(cleanup, name="clean up"):
        storage = create_volume_step(
            name=volume,
            size=volume_size,
            access_mode=access_mode,
            storage_class=storage_class,
            create=create_volume,
            prepare=prepare_volume,
            image=STEPS_IMAGE,
        )
        data = initialize_dataset(uri=dataset, config=dataset_config, reuse=reuse, keep=keep_runs, workspace=workspace)
        base = initialize_model(uri=model, name=name, reuse=reuse, keep=keep_runs, workspace=workspace)
        planned = plan_sweep(
            dataset=data.outputs["dataset"],
            model=base.outputs["model"],
            search=search,
            samples=samples,
            search_seed=search_seed,
            metric=metric,
            direction=direction,
            name=name,
            method=method,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            gradient_accumulation_steps=gradient_accumulation_steps,
            max_seq_len=max_seq_len,
            packed=packed,
            lora_rank=lora_rank,
            dtype=dtype,
            num_procs_per_node=num_procs_per_node,
            num_nodes=num_nodes,
            launcher=launcher,
            runtime=runtime,
            volume=storage.output,
            trainjob=trainjob,
            dataset_type=dataset_type,
            column_map=column_map,
            train_on_input=train_on_input,
            new_system_prompt=new_system_prompt,
            split=split,
            held_out=held_out,
            advanced=advanced,
            overrides=overrides,
            evaluation=evaluation,
            gate=gate,
            export=export,
            publish_to=publish_to,
            ui_host=ui_host,
            max_parallel=MAX_PARALLEL,
            workspace=workspace,
        )
        with dsl.ParallelFor(planned.outputs["Output"], name="trials", parallelism=MAX_PARALLEL) as trial:
            with dsl.If(launcher == "trainjob", name="on nodes of their own"):
                by_trainjob = trial_trainjob(
                    trial=trial,
                    volume=volume,  # of this name; for outputs of other steps kfp 2.17's local runner gives the item
                    image=train_image,
                    run=run,
                    runtime=runtime,
                    accelerator=accelerator,
                    trainjob=trainjob,
                )
                measured = evaluate_trial(trial=trial, failure=by_trainjob.outputs["Output"], workspace=workspace)
            with dsl.Else(name="in one pod"):
                here = run_trial(trial=trial, workspace=workspace)
        best = choose_best(sweep=planned.outputs["sweep"], keep_trials=keep_trials, workspace=workspace)
        best.after(measured, here).ignore_upstream_failure()
        chosen = best.outputs["training_plan"]
        evaluated = evaluate_model(training_plan=chosen, workspace=workspace)
        exported = export_model(
            training_plan=chosen,
            name=name,
            keep_runs=keep_runs,
            gate=gate,
            export=export,
            publish_to=publish_to,
            workspace=workspace,
            volume=storage.output,
            run=run,
            ui_host=ui_host,
            pipeline="sweep",
        )
        exported.after(evaluated)
        with_gpus = (here, measured, evaluated)
        for step in with_gpus:
            ask_for_gpus(step, accelerator, num_procs_per_node)
    fetching, loading = (data, base), (planned, here, measured, best, evaluated, exported)
    share_memory(with_gpus)
    mount_volume((*fetching, *loading), storage.output)
    give_secrets((*fetching, planned, exported), hf_secret, s3_secret)
    settle((storage, cleanup, by_trainjob, *fetching, *loading), train_image, loading)
