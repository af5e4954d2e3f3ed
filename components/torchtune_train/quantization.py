"""Which models can be held in four bits by how many processes."""

from kfp_finetune.components.torchtune_train.models import Architecture
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
    sizes = architecture.arguments
    width, heads = sizes["embed_dim"], sizes["num_heads"]
    head_dim = sizes.get("head_dim") or width // heads
    matrices = {
        "q_proj": width * heads * head_dim,
        "k_proj and v_proj": width * sizes["num_kv_heads"] * head_dim,
        "o_proj": width * heads * head_dim,
        "gate_proj, up_proj and down_proj": width * sizes["intermediate_dim"],
    }
    wrong = [f"{name} ({size:,} numbers)" for name, size in matrices.items() if size % (BLOCK * num_procs)]
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
