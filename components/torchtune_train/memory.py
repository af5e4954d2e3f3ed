"""The memory that each training process needs, told from the model's shape and the settings alone.

The terms are those of Rajbhandari et al., 2020, ZeRO, section 3: weights, gradients, the optimizer's state, and what is
left over. The activations are counted as Korthikanti et al., 2022, Reducing Activation Recomputation in Large
Transformer Models, section 4, counts them, tensor by tensor, for what torchtune's modules really hand to autograd:
`tests/components/torchtune_train/test_memory.py` compares the counts with `torch.autograd.graph.saved_tensors_hooks`.
"""

from dataclasses import dataclass

from kfp_finetune.components.torchtune_train.disk import BYTES, adapter_parameters
from kfp_finetune.components.torchtune_train.families import Architecture, matrix_shapes
from kfp_finetune.components.torchtune_train.settings import TrainSettings, runs_without_fsdp

GPU_BASE = 1 << 30
"""Bytes of a GPU that a process takes before any tensor: CUDA's context with its kernels, and the workspaces of cuBLAS
and NCCL. An assumption, of the size that is usual for torch; it is not measured here."""

FLOAT = 4
"""Bytes of a number in fp32, in which norms and the loss are computed whatever the dtype."""

EIGHT_BITS = 1 + FLOAT / 256
"""Bytes of a number of an optimizer's state in eight bits: a scale is shared by 256 (torchao's `AdamW8bit`; Dettmers
et al., 2022, 8-bit Optimizers)."""

FOUR_BITS = 0.5 + 1 / 64 + FLOAT / (64 * 256)
"""Bytes of a number in NF4: a scale of eight bits is shared by 64, and a scale of those by 256 of them (Dettmers et
al., 2023, QLoRA, section 3)."""

MLP = ("gate_proj", "up_proj", "down_proj")

SHARED_INPUTS = dict.fromkeys(("q_proj", "k_proj", "v_proj"), "attention") | dict.fromkeys(
    ("gate_proj", "up_proj"), "mlp"
)
"""The tensor that several matrices of a layer read. That which `output_proj` reads is attention's own result."""

ROUNDING = 12
"""Bytes for each number of a matrix while it is rounded: it, the result and what is between them, in fp32."""

GATHERED_LAYERS = 2
"""Layers whose weights FSDP holds whole at once: the one that is computed and the next (Zhao et al., 2023, PyTorch
FSDP, section 3.3.2)."""


@dataclass(frozen=True)
class Footprint:
    """The bytes of one training process, by what they are for.

    Args:
        weights: Its share of the weights, and those that FSDP holds whole all the time.
        optimizer: State of what it trains.
        gradients: Of what it trains, at the end of the backward pass.
        kept_gradients: Of them, those that lie there during the forward pass too, from the batch before.
        activations: What the forward pass keeps for the backward pass.
        working: What one layer takes beside that while its backward pass is computed.
        loss: Logits and loss, and what their backward pass takes.
        base: What the process takes before any tensor.
    """

    weights: float
    optimizer: float
    gradients: float
    kept_gradients: float
    activations: float
    working: float
    loss: float
    base: float = GPU_BASE

    @property
    def peak(self) -> float:
        """The most at once: between the passes, when all activations wait, or after both, when they are gone."""
        between = self.kept_gradients + self.activations + max(self.loss, self.working)
        return self.base + self.weights + self.optimizer + max(between, self.gradients)


def footprint(train: TrainSettings, architecture: Architecture, rows: int, tokens: int) -> Footprint:
    """What a training needs on each GPU.

    Not counted are the mask of packed rows, which flex attention does not need, and what the gradients take while
    processes exchange them, but for those outside the layers.

    Args:
        train: Its settings.
        architecture: The model's.
        rows: In a batch on each process.
        tokens: Of the longest row, or of a packed sequence.
    """
    in_batch = rows * tokens
    trained = trained_parameters(train, architecture) * BYTES[train.dtype] / train.world_size
    exchanged = 0 if train.has_adapter else 2 * _root(architecture) * BYTES[train.dtype]
    here = not train.fsdp_cpu_offload
    return Footprint(
        weights=here * _weights(train, architecture) / train.world_size + _gathered_root(train, architecture),
        optimizer=here * _optimizer(train, architecture) / train.world_size,
        gradients=here * trained + exchanged,
        kept_gradients=here * trained * (train.gradient_accumulation_steps > 1),
        activations=_activations(train, architecture, in_batch, tokens),
        working=_working(train, architecture, in_batch, tokens),
        loss=_loss(train, architecture, in_batch),
    )


def parameters(architecture: Architecture) -> int:
    """How many numbers a model has, whatever is trained.

    Args:
        architecture: The model's.
    """
    sizes = architecture.arguments
    return _root(architecture) + sizes["num_layers"] * _layer_parameters(architecture)


def trained_parameters(train: TrainSettings, architecture: Architecture) -> int:
    """How many numbers a training changes.

    Args:
        train: Its settings.
        architecture: The model's.
    """
    if not train.has_adapter:
        return parameters(architecture)
    shapes = matrix_shapes(architecture)
    names = adapted(train)
    magnitudes = architecture.arguments["num_layers"] * sum(shapes[name][0] for name in names)
    return adapter_parameters(train, architecture) + (magnitudes if train.has_magnitudes else 0)


def adapted(train: TrainSettings) -> list[str]:
    """The matrices of each layer that have an adapter.

    Args:
        train: The settings of a training with one.
    """
    return [*train.lora_attn_modules, *(MLP if train.apply_lora_to_mlp else ())]


def teacher_bytes(train: TrainSettings, teacher: Architecture, tokens: int) -> float:
    """Bytes that a teacher takes on each GPU beside the model that learns from it.

    They are its weights; its logits; and of each logit two numbers in fp32, the teacher's probability and the logarithm
    of the model's, which wait for the backward pass.

    Args:
        train: Settings of the training.
        teacher: Its architecture.
        tokens: In a batch on each process.
    """
    logits = tokens * matrix_shapes(teacher)["output"][0] * (BYTES[train.dtype] + 2 * FLOAT)
    return frozen_bytes(train, teacher) + logits


def frozen_bytes(train: TrainSettings, architecture: Architecture) -> float:
    """Bytes of the weights of a second model on each GPU, which only reads; its layers are gathered in turn.

    Args:
        train: Settings of the training.
        architecture: The second model's.
    """
    layers = architecture.arguments["num_layers"]
    gathered = _root(architecture) + min(GATHERED_LAYERS, layers) * _layer_parameters(architecture)
    here = not train.fsdp_cpu_offload
    return BYTES[train.dtype] * (here * parameters(architecture) / train.world_size + gathered)


def _layer_parameters(architecture: Architecture) -> int:
    sizes = architecture.arguments
    shapes = matrix_shapes(architecture)
    biases = sum(shapes[name][0] for name in ("q_proj", "k_proj", "v_proj")) if _has_biases(architecture) else 0
    of_heads = 2 * sizes["head_dim"] if _norms_heads(architecture) else 0
    return _layer_matrices(architecture) + _norms(architecture) * sizes["embed_dim"] + biases + of_heads


def _layer_matrices(architecture: Architecture) -> int:
    return sum(rows * columns for name, (rows, columns) in matrix_shapes(architecture).items() if name != "output")


def _root(architecture: Architecture) -> int:
    """Numbers outside the layers: embeddings, output layer and the last norm, which FSDP holds whole all the time."""
    vocabulary, width = matrix_shapes(architecture)["output"]
    return vocabulary * width * (1 if architecture.tied else 2) + width


def _norms(architecture: Architecture) -> int:
    return 4 if architecture.model_type == "GEMMA2" else 2


def _has_biases(architecture: Architecture) -> bool:
    return architecture.builder == "torchtune.models.qwen2.qwen2"


def _norms_heads(architecture: Architecture) -> bool:
    """Whether queries and keys are normalised in each head."""
    return architecture.builder.endswith(".qwen3")


def _weights(train: TrainSettings, architecture: Architecture) -> float:
    """Bytes of all weights, adapters too."""
    size = BYTES[train.dtype]
    layers = architecture.arguments["num_layers"]
    adapter = trained_parameters(train, architecture) if train.has_adapter else 0
    whole = (parameters(architecture) + adapter) * size
    saved = (size - FOUR_BITS) * layers * _layer_matrices(architecture) if train.quantizes_base else 0
    return whole - saved


def _gathered_root(train: TrainSettings, architecture: Architecture) -> float:
    """Bytes of what is outside the layers, which FSDP holds whole beside the shares, even for one process."""
    if runs_without_fsdp(train.method, train.world_size):
        return 0.0
    return _root(architecture) * BYTES[train.dtype] / train.tensor_parallel_dim


def _gathered_layers(train: TrainSettings, architecture: Architecture) -> float:
    """Bytes of the layers that FSDP holds whole beside the shares."""
    if runs_without_fsdp(train.method, train.world_size):
        return 0.0
    layers = architecture.arguments["num_layers"]
    layer = (_weights(train, architecture) - _root(architecture) * BYTES[train.dtype]) / layers
    return min(GATHERED_LAYERS, layers) * layer / train.tensor_parallel_dim


def _optimizer(train: TrainSettings, architecture: Architecture) -> float:
    """Bytes of AdamW's two moments of each number that is trained (Loshchilov and Hutter, 2019)."""
    size = EIGHT_BITS if train.optimizer == "adamw_8bit" else BYTES[train.dtype]
    return 2 * size * trained_parameters(train, architecture)


def _activations(train: TrainSettings, architecture: Architecture, tokens: int, length: int) -> float:
    """Bytes that wait for the backward pass: of each layer all, its input alone, or nothing on the GPU."""
    layers, width = architecture.arguments["num_layers"], architecture.arguments["embed_dim"]
    layer, rounded = layer_bytes(train, architecture, length), layers * _rounded(train, architecture)
    if train.enable_activation_checkpointing:
        layer, rounded = 0 if train.enable_activation_offloading else width * BYTES[train.dtype], 0
    return tokens * (layers * layer + root_bytes(train, architecture)) + rounded


def _working(train: TrainSettings, architecture: Architecture, tokens: int, length: int) -> float:
    """Bytes that the backward pass of a layer holds at once.

    They are two gradients of the MLP's width, the weights of the layers that are gathered, and with activation
    checkpointing what the layer kept if it were not for that.
    """
    size = BYTES[train.dtype]
    gradients = 2 * size * architecture.arguments["intermediate_dim"] / train.tensor_parallel_dim
    again = layer_bytes(train, architecture, length) if train.enable_activation_checkpointing else 0
    weights = _gathered_layers(train, architecture) + _unpacked(train, architecture)
    if train.enable_activation_checkpointing:
        weights += _rounded(train, architecture)
    return tokens * (gradients + again) + weights


def _rounded(train: TrainSettings, architecture: Architecture) -> float:
    """Bytes of a layer's rounded weights, which wait beside the exact ones for the backward pass."""
    return _layer_matrices(architecture) * BYTES[train.dtype] * bool(train.quantization_aware)


def layer_bytes(train: TrainSettings, architecture: Architecture, length: int) -> float:
    """Bytes that a layer keeps for its backward pass, for each token.

    Kept are queries, keys and values, with as many heads as queries have, since torchtune repeats those that are
    shared; what attention gives, and the logarithm of its sums (Dao, 2023, FlashAttention-2, section 3.1); of the MLP
    the gate before and after its activation, and what that is multiplied with. Gemma 2's attention is not fused: its
    scores are kept capped, as weights in fp32, and as weights.

    Args:
        train: Settings.
        architecture: The model's.
        length: Tokens in a row.
    """
    sizes, shapes, size = architecture.arguments, matrix_shapes(architecture), BYTES[train.dtype]
    heads = sizes["num_heads"] * FLOAT * (2 * length if architecture.model_type == "GEMMA2" else 1)
    shared = size * (4 * shapes["q_proj"][0] + 3 * sizes["intermediate_dim"]) + heads
    norms = _norms(architecture) * _norm_bytes(train, sizes["embed_dim"])
    if _norms_heads(architecture):
        norms += (sizes["num_heads"] + sizes["num_kv_heads"]) * _norm_bytes(train, sizes["head_dim"])
    return norms + shared / train.tensor_parallel_dim + _inputs(train, architecture)


def root_bytes(train: TrainSettings, architecture: Architecture) -> float:
    """Bytes that the last norm and the output layer keep for the backward pass, for each token.

    With an adapter, the first norm keeps nothing, since what the embeddings give needs no gradient: that makes up for
    the last.

    Args:
        train: Settings.
        architecture: The model's.
    """
    width, size = architecture.arguments["embed_dim"], BYTES[train.dtype]
    if train.has_adapter:
        return (width + train.lora_rank) * size * train.apply_lora_to_output
    return _norm_bytes(train, width) + width * size


def _norm_bytes(train: TrainSettings, width: int) -> int:
    """A norm keeps its input in fp32 and the root of its mean square; if it is trained, its result before scaling."""
    return FLOAT * (width * (1 if train.has_adapter else 2) + 1)


def _inputs(train: TrainSettings, architecture: Architecture) -> float:
    """Bytes of a layer's inputs to matrices that are trained, and of what adapters keep between theirs.

    Matrices that read the same tensor keep it once, unless dropout makes one for each, and a mask of it. DoRA keeps a
    matrix's result with and without the adapter.
    """
    shapes, size = matrix_shapes(architecture), BYTES[train.dtype]
    names = adapted(train) if train.has_adapter else [name for name in shapes if name != "output"]
    between = len(names) * train.lora_rank * size if train.has_adapter else 0
    if train.has_magnitudes:
        between += 2 * size * sum(shapes[name][0] for name in names)
    if train.has_adapter and train.lora_dropout:
        return between + (size + 1) * sum(shapes[name][1] for name in names)
    readers = {
        "q_proj": "attention",
        "k_proj": "attention",
        "v_proj": "attention",
        "gate_proj": "mlp",
        "up_proj": "mlp",
    }
    inputs = {readers.get(name, name): shapes[name][1] for name in names if name != "output_proj"}
    return between + size * sum(inputs.values())


def _unpacked(train: TrainSettings, architecture: Architecture) -> float:
    """Bytes of the largest matrix while it is unpacked from four bits, its rows' norms are taken, or it is rounded.

    torchao 0.15 looks up the sixteen values with whole numbers of eight bytes; DoRA adds the adapter to a copy.
    """
    size = BYTES[train.dtype]
    largest = max(rows * columns for name, (rows, columns) in matrix_shapes(architecture).items() if name != "output")
    unpacked, normed = (8 + 2 * size) * train.quantizes_base, 3 * size * train.has_magnitudes
    return largest * (unpacked + normed + ROUNDING * bool(train.quantization_aware))


def _loss(train: TrainSettings, architecture: Architecture, tokens: int) -> float:
    """Bytes of logits and loss, at the forward pass's end or while the first part's gradients are computed.

    All logits lie there as their logarithms of the softmax are taken in fp32, part by part, and kept; then their
    gradients are computed part by part, and those of the output layer's weights, if it is trained.
    """
    size = BYTES[train.dtype]
    vocabulary, width = matrix_shapes(architecture)["output"]
    numbers, part = tokens * vocabulary, tokens * vocabulary / train.num_output_chunks
    capped = size * numbers * (architecture.model_type == "GEMMA2")
    forward = (size + FLOAT) * numbers + (FLOAT * part if size < FLOAT else 0)
    backward = FLOAT * numbers + (2 * FLOAT + size) * part
    weights = 0 if train.has_adapter else 2 * size * vocabulary * width
    return capped + max(forward, backward + weights)
