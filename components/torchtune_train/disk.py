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

    The checkpoints inside an epoch are gone before the export is written.

    Args:
        train: Its settings.
        architecture: The model's.
        parameters: Numbers in the model's files.
    """
    export = bytes_of_export(train, architecture, parameters)
    inside = bytes_inside_epoch(train, architecture, parameters)
    return bytes_of_epochs(train, architecture, parameters) + max(inside, export)


def bytes_of_epochs(train: TrainSettings, architecture: Architecture, parameters: int) -> int:
    """The most that the epochs of a training take at once.

    An epoch's checkpoint is a whole model and, but for full fine-tuning, the adapter in two forms. Beside it lies
    AdamW's state, two numbers for each that is trained, until the next epoch is whole; an epoch that is not to be kept
    goes when the next is whole.

    Args:
        train: Its settings.
        architecture: The model's.
        parameters: Numbers in the model's files.
    """
    adapter = adapter_parameters(train, architecture) if train.has_adapter else 0
    epochs = min(train.epochs, train.keep_last_n_checkpoints + 1) if train.keep_last_n_checkpoints else train.epochs
    state = _bytes_of_state(train, adapter or parameters)
    return epochs * (parameters + 2 * adapter) * BYTES[train.dtype] + min(train.epochs - 1, 2) * state


def bytes_inside_epoch(train: TrainSettings, architecture: Architecture, parameters: int) -> int:
    """What the checkpoints inside an epoch take: two of what is trained and its state lie there at once.

    Args:
        train: Its settings.
        architecture: The model's.
        parameters: Numbers in the model's files.
    """
    if not train.checkpoint_minutes:
        return 0
    trained = adapter_parameters(train, architecture) if train.has_adapter else parameters
    return 2 * (trained * BYTES[train.dtype] + _bytes_of_state(train, trained))


def bytes_of_export(train: TrainSettings, architecture: Architecture, parameters: int) -> int:
    """What the export takes: the model, and the adapter if there is one.

    Args:
        train: The training's settings.
        architecture: The model's.
        parameters: Numbers in the model's files.
    """
    adapter = adapter_parameters(train, architecture) if train.has_adapter else 0
    return (parameters + adapter) * BYTES[train.dtype]


def _bytes_of_state(train: TrainSettings, trained: int) -> int:
    return 2 * trained * (1 if train.optimizer == "adamw_8bit" else BYTES[train.dtype])


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
