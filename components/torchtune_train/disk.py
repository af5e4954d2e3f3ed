"""Whether the volume has room for what a training writes."""

from kfp_finetune.components.torchtune_train.families import Architecture, matrix_shapes
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.errors import Problem
from kfp_finetune.training.disk import check_room
from kfp_finetune.training.exporting import ExportSettings
from kfp_finetune.workspace import Workspace

BYTES = {"bf16": 2, "fp32": 4}
"""Of one number, by dtype."""


def check_disk(
    workspace: Workspace,
    key: str,
    train: TrainSettings,
    architecture: Architecture,
    parameters: int,
    export: ExportSettings,
) -> list[Problem]:
    """Compares what a training and its export will write with what the volume has left.

    Args:
        workspace: The tree on the volume.
        key: The training's; what lies there already need not be written again.
        train: Its settings.
        architecture: The model's.
        parameters: Numbers in the model's files.
        export: How the export is to be made.
    """
    kept = train.keep_last_n_checkpoints or train.epochs
    what = f"the checkpoints of {kept} epochs, what training goes on from, and the export"
    mend = "set keep_last_n_checkpoints to 1"
    if train.checkpoint_minutes:
        mend += ", or checkpoint_minutes to 0: no checkpoints inside epochs"
    beside = export.bytes_beside(parameters * BYTES[train.dtype])
    return check_room(workspace, key, bytes_to_write(train, architecture, parameters) + beside, what, mend)


def bytes_to_write(train: TrainSettings, architecture: Architecture, parameters: int) -> int:
    """The most that the checkpoints of a training and its export take at once.

    An epoch's checkpoint is a whole model and, but for full fine-tuning, the adapter in two forms. Beside it lies
    AdamW's state, two numbers for each that is trained, until the next epoch is whole; an epoch that is not to be kept
    goes when the next is whole. Inside an epoch, two checkpoints of what is trained and its state lie there at once,
    which are gone before the export is written.

    Args:
        train: Its settings.
        architecture: The model's.
        parameters: Numbers in the model's files.
    """
    size = BYTES[train.dtype]
    adapter = adapter_parameters(train, architecture) if train.has_adapter else 0
    trained = adapter or parameters
    state = 2 * trained * (1 if train.optimizer == "adamw_8bit" else size)
    inside = 2 * (trained * size + state) if train.checkpoint_minutes else 0
    epochs = min(train.epochs, train.keep_last_n_checkpoints + 1) if train.keep_last_n_checkpoints else train.epochs
    checkpoint, export = (parameters + 2 * adapter) * size, (parameters + adapter) * size
    return epochs * checkpoint + min(train.epochs - 1, 2) * state + max(inside, export)


def adapter_parameters(train: TrainSettings, architecture: Architecture) -> int:
    """How many numbers an adapter has: rank x (rows + columns) for each matrix that it is put beside.

    Hu et al., 2021, LoRA, section 4.1.

    Args:
        train: Rank and matrices.
        architecture: The model's.
    """
    shapes = matrix_shapes(architecture)
    names: list[str] = list(train.lora_attn_modules)
    names += ["gate_proj", "up_proj", "down_proj"] if train.apply_lora_to_mlp else []
    layers = architecture.arguments["num_layers"]
    numbers = layers * sum(train.lora_rank * sum(shapes[name]) for name in names)
    return numbers + (train.lora_rank * sum(shapes["output"]) if train.apply_lora_to_output else 0)
