"""Fine-tunes a model of transformers for its task, from dataset to verified export."""

from kfp import dsl

from kfp_finetune.components.clean_up.component import clean_up
from kfp_finetune.components.create_volume.component import create_volume as create_volume_step
from kfp_finetune.components.export_model.component import export_model
from kfp_finetune.components.initialize_dataset.component import initialize_dataset
from kfp_finetune.components.initialize_model.component import initialize_model
from kfp_finetune.components.transformers_train.component import plan, transformers_train, transformers_trainjob
from kfp_finetune.images import STEPS_IMAGE, TRAIN_IMAGE
from kfp_finetune.pipelines.wiring import ask_for_gpus, give_secrets, mount_volume, settle, share_memory
from kfp_finetune.workspace import MOUNT_PATH


@dsl.pipeline(
    name="transformers-finetune",
    display_name="Fine-tune a model with transformers",
    description="Text, token and image classification, question answering, language models: from a dataset and a model "
    "to a fine-tuned model that is evaluated, verified and ready to load.",
)
def transformers_finetune(
    model: str,
    dataset: str,
    transformer_type: str,
    name: str = "finetune",
    start_from: str = "model",
    skip_unchanged: bool = True,
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
    gate: dict = {},  # noqa: B006
    export: dict = {},  # noqa: B006
    publish_to: str = "",
    advanced: dict = {},  # noqa: B006
    launcher: str = "process",
    num_workers: int = 1,
    num_procs_per_worker: int = 1,
    resources_per_worker: dict = {},  # noqa: B006
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
    """Fine-tunes a model of transformers for its task, from dataset to verified export.

    Args:
        model: hf://ORGANISATION/NAME[@REVISION], s3://BUCKET/PREFIX or a folder.
        dataset: A path, hf://ORGANISATION/NAME[@REVISION][/FOLDER] or s3://BUCKET/PREFIX; with /*.jsonl, some files.
        transformer_type: What it is trained for: AutoModelForSequenceClassification, AutoModelForTokenClassification,
            AutoModelForQuestionAnswering, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForImageClassification.
        name: Name of the series; latest/NAME on the volume points to its newest model.
        start_from: "model" begins with model; "latest" with the series' newest model, once it has one made from model.
        skip_unchanged: For "latest": whether to end at once if data and settings are as they were; "model" always does.
        num_labels: How many labels the model is to tell apart; 0 for those of the rows to train on.
        epochs: Passes over the training rows.
        learning_rate: Peak of the schedule; 0 means 5e-5, and 2e-4 with LoRA.
        batch_size: Rows in a batch on each process.
        gradient_accumulation_steps: Batches before each update of the weights.
        max_seq_len: Tokens after which a row is cut; 0 means 512, or as many as the model can read if fewer.
        dtype: "bf16" computes in bf16 with weights in fp32, "fp32" all in fp32.
        strategy: "ddp" has the whole model on each process, "fsdp" shares weights, gradients and optimizer out.
        training_arguments: Any other of transformers' TrainingArguments: {"weight_decay": 0.01, "warmup_steps": 100}.
        lora_config: peft's LoraConfig, for an adapter and not the weights: {"r": 8, "lora_alpha": 16}; empty for none.
        column_map: Columns of other names: {"text": "review", "label": "stars"}.
        split: Rows to train on: a split's name or a part of one, such as "train[:3000]".
        held_out: Rows to evaluate on, never trained on: a share of the split ("5%") or another split ("test").
        gate: Bounds on the held-out rows, without which nothing is exported: {"min_improvement": 0.1, "max_loss": 2}.
        export: Size of the model's files and a quantised copy: {"max_shard_size": "5GB", "quantize": "int8"}.
        publish_to: Where the model is published too: hf://ORGANISATION/NAME[@BRANCH], s3://BUCKET/PREFIX or a model in
            a Model Registry, registry+http://HOST:PORT/NAME; or several.
        advanced: Settings without a parameter of their own: {"seed": 7, "export_checkpoint": "best"}.
        launcher: "process" trains in one pod of this run, "trainjob" on any number of nodes by Kubeflow Trainer.
        num_workers: Machines to train on; more than one needs launcher trainjob and access_mode ReadWriteMany.
        num_procs_per_worker: Training processes on each machine, one for each GPU.
        resources_per_worker: For trainjob, what each machine's pod asks for: {"gpu": 2, "cpu": 5, "memory": "10G"}.
        accelerator: Kubernetes resource name of the GPUs; empty to train on CPUs.
        runtime: Training runtime of Kubeflow Trainer, for launcher trainjob.
        trainjob: Training pods of launcher trainjob: {"node_selector": {...}, "queue": "team"}.
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
        train_image: Image of the steps that load a model: plan, train, export.
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
        base = initialize_model(
            uri=model,
            start_from=start_from,
            name=name,
            reuse=reuse,
            keep=keep_runs,
            workspace=workspace,
        )
        planned = plan(
            dataset=data.outputs["dataset"],
            model=base.outputs["model"],
            transformer_type=transformer_type,
            name=name,
            num_labels=num_labels,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            gradient_accumulation_steps=gradient_accumulation_steps,
            max_seq_len=max_seq_len,
            dtype=dtype,
            strategy=strategy,
            training_arguments=training_arguments,
            lora_config=lora_config,
            column_map=column_map,
            split=split,
            held_out=held_out,
            advanced=advanced,
            num_workers=num_workers,
            num_procs_per_worker=num_procs_per_worker,
            resources_per_worker=resources_per_worker,
            launcher=launcher,
            runtime=runtime,
            volume=storage.output,
            trainjob=trainjob,
            skip_unchanged=skip_unchanged,
            gate=gate,
            export=export,
            publish_to=publish_to,
            ui_host=ui_host,
            workspace=workspace,
        )
        with dsl.If(planned.outputs["Output"] == True, name="needed"):  # noqa: E712  KFP builds the condition from ==
            training_plan = planned.outputs["training_plan"]
            with dsl.If(launcher == "trainjob", name="on nodes of their own"):
                by_trainjob = transformers_trainjob(
                    training_plan=training_plan,
                    volume=storage.output,
                    image=train_image,
                    run=run,
                    runtime=runtime,
                    accelerator=accelerator,
                    resources_per_worker=resources_per_worker,
                    trainjob=trainjob,
                )
            with dsl.Else(name="in one pod"):
                here = transformers_train(training_plan=training_plan, workspace=workspace)
            trained = dsl.OneOf(by_trainjob.outputs["Output"], here.outputs["Output"])
            exported = export_model(
                training_plan=training_plan,
                trained=trained,
                name=name,
                keep_runs=keep_runs,
                gate=gate,
                export=export,
                publish_to=publish_to,
                workspace=workspace,
                volume=storage.output,
                run=run,
                ui_host=ui_host,
                pipeline="transformers-finetune",
            )
            ask_for_gpus(here, accelerator, num_procs_per_worker)
    fetching, loading = (data, base), (planned, here, exported)
    share_memory((here,))
    mount_volume((*fetching, *loading), storage.output)
    give_secrets((*fetching, planned, exported), hf_secret, s3_secret)
    settle((storage, cleanup, by_trainjob, *fetching, *loading), train_image, loading)
