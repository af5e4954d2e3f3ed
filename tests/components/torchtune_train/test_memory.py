"""The memory that is told from the model's shape, against torchtune's own modules."""

import gc
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from counted import Peak
from shapes import DTYPES, LAYERS, architecture_of, build
from torchtune.modules.loss import CEWithChunkedOutputLoss

from kfp_finetune.components.torchtune_train.families import Architecture, matrix_shapes
from kfp_finetune.components.torchtune_train.memory import (
    ROUNDING,
    adapted,
    footprint,
    layer_bytes,
    parameters,
    root_bytes,
    trained_parameters,
)
from kfp_finetune.components.torchtune_train.settings import TrainSettings
from kfp_finetune.rounding import rounded

ROWS, TOKENS, PARTS = 4, 64, 4
QUANTIZABLE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
METHODS: list[dict[str, Any]] = [
    {"method": "full"},
    {"method": "lora"},
    {"method": "dora"},
    {"lora_attn_modules": ["q_proj", "output_proj"], "apply_lora_to_mlp": False},
]


class Kept:
    """Counts the bytes that autograd holds, each storage once, but for weights."""

    def __init__(self, model: Any):
        self._own = {_place(tensor) for tensor in [*model.parameters(), *model.buffers()]}
        self._holders: Counter[int] = Counter()
        self._sizes: dict[int, int] = {}

    def pack(self, tensor: torch.Tensor) -> "Handle":
        place = _place(tensor)
        self._holders[place] += 1
        self._sizes[place] = tensor.untyped_storage().nbytes()
        return Handle(tensor, self._holders, place)

    @property
    def bytes(self) -> int:
        return sum(self._sizes[place] for place in +self._holders if place not in self._own)


class Handle:
    def __init__(self, tensor: torch.Tensor, holders: Counter[int], place: int):
        self.tensor, self._holders, self._place = tensor, holders, place

    def __del__(self) -> None:
        self._holders[self._place] -= 1


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def kept(train: TrainSettings, architecture: Architecture) -> tuple[int, int]:
    """Bytes that wait for the backward pass after the model, and those that the loss adds."""
    model = build(train, architecture)
    model.set_num_output_chunks(PARTS)
    tokens = torch.randint(320, (ROWS, TOKENS))
    count = Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(count.pack, lambda handle: handle.tensor):
        logits = model(tokens)
        gc.collect()
        of_model = count.bytes
        loss = CEWithChunkedOutputLoss(PARTS)(logits, tokens)
        of_loss = count.bytes - of_model
    loss.backward()
    return of_model, of_loss


def expected(train: TrainSettings, architecture: Architecture) -> float:
    return ROWS * TOKENS * (LAYERS * layer_bytes(train, architecture, TOKENS) + root_bytes(train, architecture))


@pytest.mark.parametrize("bits", ["int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_matrix_takes_as_much_as_is_told_while_it_is_rounded(bits: str, dtype: torch.dtype):
    matrix = torch.randn(512, 1024, dtype=dtype)
    with Peak() as peak:
        rounded(matrix, bits)
    assert peak.bytes / matrix.numel() == pytest.approx(ROUNDING, abs=1.1)


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
def test_rounded_weights_wait_for_the_backward_pass_unless_they_are_computed_again(again: bool):
    architecture = architecture_of("qwen2")
    exact = TrainSettings(method="full", max_seq_len=TOKENS, enable_activation_checkpointing=again)
    aware = replace(exact, quantization_aware="int8")
    told = [footprint(train, architecture, ROWS, TOKENS) for train in (exact, aware)]
    sizes = [rows * columns for name, (rows, columns) in matrix_shapes(architecture).items() if name != "output"]
    layers = (LAYERS, 0) if not again else (0, 1)
    found = [getattr(told[1], name) - getattr(told[0], name) for name in ("activations", "working")]
    assert found == [layers[0] * sum(sizes) * 2, layers[1] * sum(sizes) * 2 + ROUNDING * max(sizes)]
    if not again:
        assert kept(aware, architecture)[0] - kept(exact, architecture)[0] == pytest.approx(found[0], rel=0.02)


@pytest.mark.parametrize("method", METHODS, ids=["full", "lora", "dora", "lora of two matrices"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_numbers_in_a_model_and_numbers_trained_are_exact(family: str, method: dict[str, Any]):
    train, architecture = TrainSettings(max_seq_len=TOKENS, **method), architecture_of(family)
    model = build(train, architecture)
    adapter = trained_parameters(train, architecture) if train.has_adapter else 0
    assert parameters(architecture) + adapter == sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert trained_parameters(train, architecture) == trained


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS, ids=["full", "lora", "dora", "lora of two matrices"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma", "gemma2"])
def test_what_autograd_keeps_is_told_within_five_percent(family: str, method: dict[str, Any], dtype: str):
    train = TrainSettings(max_seq_len=TOKENS, dtype=dtype, **method)
    of_model, of_loss = kept(train, architecture_of(family))
    assert expected(train, architecture_of(family)) == pytest.approx(of_model, rel=0.05)
    assert of_loss == pytest.approx(4 * ROWS * TOKENS * 320, rel=0.01)


def test_dropout_makes_an_input_for_each_adapter_and_a_mask_of_it():
    train, architecture = TrainSettings(max_seq_len=TOKENS, dtype="fp32", lora_dropout=0.1), architecture_of("llama")
    of_model, _ = kept(train, architecture)
    inputs = sum(matrix_shapes(architecture)[name][1] for name in adapted(train))
    # On a CPU the mask is of the dtype, on a GPU it is a byte. The first layer's input needs no gradient, nor a mask.
    masks = ROWS * TOKENS * (4 - 1) * LAYERS * inputs
    assert expected(train, architecture) + masks == pytest.approx(of_model, rel=0.05)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_in_four_bits_are_as_large_as_torchao_makes_them(dtype: str):
    architecture = architecture_of("llama", **QUANTIZABLE)
    train = TrainSettings(method="qlora", max_seq_len=TOKENS, dtype=dtype)
    model = build(train, architecture)
    there = 0
    for weight in model.parameters():
        if hasattr(weight, "quantized_data"):
            parts = [weight.quantized_data, weight.quantized_scalers, weight.quantization_factor]
            there += sum(part.numel() * part.element_size() for part in parts)
        else:
            there += weight.numel() * weight.element_size()
    assert footprint(train, architecture, 1, TOKENS).weights == pytest.approx(there, rel=0.01)


def test_the_state_of_eight_bits_is_as_large_as_torchao_makes_it():
    from torchao.optim import AdamW8bit

    architecture = architecture_of("llama", hidden_size=256, intermediate_size=512)
    train = TrainSettings(method="full", max_seq_len=TOKENS, optimizer="adamw_8bit")
    model = build(train, architecture)
    optimizer = AdamW8bit(model.parameters())
    states = [optimizer._new_buffer(weight, signed) for weight in model.parameters() for signed in (True, False)]
    there = 0
    for state in states:
        parts = [state.codes, state.scale] if hasattr(state, "codes") else [state]
        there += sum(part.numel() * part.element_size() for part in parts)
    assert footprint(train, architecture, 1, TOKENS).optimizer == pytest.approx(there, rel=0.02)


def test_processes_share_what_is_trained_and_checkpointing_keeps_inputs_alone():
    architecture = architecture_of("llama", vocab_size=512)
    train = TrainSettings(method="full", max_seq_len=TOKENS, gradient_accumulation_steps=2)
    alone = footprint(train, architecture, ROWS, TOKENS)
    shared = footprint(replace(train, num_procs_per_node=2, num_nodes=2), architecture, ROWS, TOKENS)
    assert shared.optimizer == alone.optimizer / 4
    assert shared.kept_gradients == alone.kept_gradients / 4
    assert alone.weights - shared.weights == 3 / 4 * 2 * parameters(architecture)
    assert shared.activations == alone.activations
    again = footprint(replace(train, enable_activation_checkpointing=True), architecture, ROWS, TOKENS)
    root = ROWS * TOKENS * root_bytes(train, architecture)
    assert again.activations == LAYERS * ROWS * TOKENS * 2 * 64 + root
    assert again.working - alone.working == ROWS * TOKENS * layer_bytes(train, architecture, TOKENS)
    away = footprint(replace(train, fsdp_cpu_offload=True), architecture, ROWS, TOKENS)
    assert (away.optimizer, away.kept_gradients) == (0, 0) and away.weights < alone.weights
    assert alone.peak > again.peak


def test_the_peak_is_between_the_passes_or_after_both():
    architecture = architecture_of("llama")
    train = TrainSettings(method="full", max_seq_len=TOKENS)
    few, many = (footprint(train, architecture, rows, TOKENS) for rows in (1, 64))
    kept_by_both = many.base + many.weights + many.optimizer
    assert many.peak == kept_by_both + many.activations + max(many.loss, many.working)
    assert few.gradients == many.gradients and few.peak < many.peak
