"""Which models can be held in four bits by how many processes, and what becomes of these bits in a checkpoint."""

from functools import partial
from typing import Any

from kfp_finetune.components.torchtune_train.families import (
    Architecture,
    Config,
    keeps_pairs,
    matrix_shapes,
    rotary_heads,
)
from kfp_finetune.errors import Problem

BLOCK = 64 * 256
"""Numbers that NF4 quantises together: blocks of 64, whose scales are quantised in blocks of 256 (Dettmers et al.,
2023, QLoRA, section 3)."""


def unquantizable(architecture: Architecture, num_procs: int) -> list[Problem]:
    """The weights that four bits cannot hold, as one problem or none.

    Each process quantises its share of every matrix, so that a share must be whole blocks.

    Args:
        architecture: The model's.
        num_procs: Processes that share the weights.
    """
    sizes = {name: rows * columns for name, (rows, columns) in matrix_shapes(architecture).items() if name != "output"}
    wrong = [f"{name} ({size:,} numbers)" for name, size in sizes.items() if size % (BLOCK * num_procs)]
    if not wrong:
        return []
    return [
        Problem(
            "method",
            f"four bits on {num_procs} processes, for a model with {', '.join(wrong)}",
            f"matrices whose size is a multiple of {BLOCK:,} times the number of processes",
            "Use lora or dora, or fewer processes.",
        )
    ]


def restore_in(model: Any, dtype: Any) -> None:
    """Lets a model's four-bit weights be restored in the dtype of its training.

    torchtune 0.6.1's builders restore them in bf16 for every family but Qwen 2, whatever the other weights are.

    Args:
        model: A module.
        dtype: Of torch.
    """
    for hook in model._state_dict_hooks.values():
        if isinstance(hook, partial) and "offload_to_cpu" in hook.keywords:
            hook.keywords["dtype"] = dtype


def in_four_bits(name: str, weight: Any, config: Config) -> Any:
    """A base weight as a training in four bits saw it.

    Scales are shared by blocks of rows that follow one another, so that it matters in which order torchtune keeps
    them: see `torchtune.models.convert_weights.hf_to_tune`.

    Args:
        name: Of the weight, as transformers has it.
        weight: A matrix.
        config: The whole config.json; see `families.complete`.
    """
    from torchao.dtypes.nf4tensor import to_nf4

    heads = rotary_heads(name, config)
    if heads is None or not keeps_pairs(config):
        return to_nf4(weight).get_original_weight()
    columns = weight.shape[1]
    paired = weight.view(heads, 2, -1, columns).transpose(1, 2).reshape(-1, columns)
    restored = to_nf4(paired).get_original_weight()
    return restored.view(heads, -1, 2, columns).transpose(1, 2).reshape(-1, columns)
