"""The families of models that can be trained: how torchtune 0.6.1 builds each, and what that assumes.

Each was checked logit by logit against transformers; see tests/components/torchtune_train/test_models.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfp_finetune.components.torchtune_train.names import ROOM

Config = Mapping[str, Any]
GEMMA = f"{ROOM}.gemma"
QWEN3 = f"{ROOM}.qwen3"


@dataclass(frozen=True)
class Architecture:
    """How torchtune builds a model.

    Args:
        builder: Dotted name of the function that builds it.
        lora_builder: Dotted name of the function that builds it with an adapter.
        model_type: torchtune's name for the layout of its weights.
        arguments: Of the builder, but for the sequence length.
        max_seq_len: Longest sequence, in tokens, that the builder computes as the model does: as far as its positions
            reach and, where the builder has no sliding window and the model has one, no longer than that window.
        tied: Whether output and input embeddings are one matrix.
    """

    builder: str
    lora_builder: str
    model_type: str
    arguments: dict[str, Any]
    max_seq_len: int
    tied: bool


def keeps_pairs(config: Config) -> bool:
    """Whether torchtune keeps the rows of queries and keys in pairs, for its interleaved rotary embeddings.

    Args:
        config: The config.json.
    """
    return config["model_type"] not in ("qwen2", "qwen3")


def rotary_heads(name: str, config: Config) -> int | None:
    """How many heads a matrix of queries or keys has; None for another matrix.

    Args:
        name: Of a weight or of its adapter, as transformers or peft has it.
        config: The whole config.json; see `complete`.
    """
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    return next((count for module, count in heads.items() if f".{module}." in name), None)


def matrix_shapes(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """Rows and columns of each layer's matrices, by torchtune's name, and of the output layer.

    Args:
        architecture: The model's.
    """
    sizes = architecture.arguments
    width, inner = sizes["embed_dim"], sizes["intermediate_dim"]
    head_dim = sizes.get("head_dim") or width // sizes["num_heads"]
    queries, keys = sizes["num_heads"] * head_dim, sizes["num_kv_heads"] * head_dim
    return {
        "q_proj": (queries, width),
        "k_proj": (keys, width),
        "v_proj": (keys, width),
        "output_proj": (width, queries),
        "gate_proj": (inner, width),
        "up_proj": (inner, width),
        "down_proj": (width, inner),
        "output": (sizes["vocab_size"], width),
    }


@dataclass(frozen=True)
class Family:
    """The models that share a `model_type` in config.json.

    Args:
        build: From a whole config.json (see `complete`) to the architecture.
        defaults: What transformers takes for what config.json leaves out, where it differs from `DEFAULTS`.
        allowed: The values that the builder can do, where they differ from `ALLOWED`.
        rope_types: The kinds of rotary embeddings that the builder can do.
        has_head_dim: Whether the builder takes heads of any size; else it is the hidden size over their number.
    """

    build: Callable[[Config], Architecture]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    allowed: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    rope_types: Sequence[str] = ("default",)
    has_head_dim: bool = False


def complete(config: Config) -> dict[str, Any]:
    """A config.json with all that it leaves out, as transformers' class of its family has it.

    Args:
        config: With every size of the model and a known `model_type`.
    """
    whole = {**DEFAULTS, **FAMILIES[config["model_type"]].defaults, **config}
    if whole["num_key_value_heads"] is None:
        whole["num_key_value_heads"] = whole["num_attention_heads"]
    if whole["head_dim"] is None:
        whole["head_dim"] = whole["hidden_size"] // whole["num_attention_heads"]
    return whole


def _llama(config: Config) -> Architecture:
    """Llama 2, Code Llama and Llama 3 have plain positions; 3.1 to 3.3 stretch them; the small ones of 3.2 are tied."""
    if config["tie_word_embeddings"]:
        return _tied_llama(config)
    if rope_type(config) == "llama3":
        return _architecture(config, "llama3_1", "LLAMA3", scale_factor=read_rope(config)["factor"])
    return _architecture(config, "llama3", "LLAMA3")


def _tied_llama(config: Config) -> Architecture:
    factor = read_rope(config)["factor"] if rope_type(config) == "llama3" else 1
    return _architecture(config, "llama3_2", "LLAMA3_2", scale_factor=factor, tie_word_embeddings=True)


def _mistral(config: Config) -> Architecture:
    """A tied Mistral is a tied Llama with a window: torchtune's own builder knows no tied one."""
    return _tied_llama(config) if config["tie_word_embeddings"] else _architecture(config, "mistral", "MISTRAL")


def _gemma(config: Config) -> Architecture:
    lora = f"{GEMMA}.lora_gemma"
    return _architecture(config, "gemma", "GEMMA", lora_builder=lora, head_dim=config["head_dim"])


def _gemma2(config: Config) -> Architecture:
    return _architecture(
        config,
        "gemma2",
        "GEMMA2",
        builder=f"{GEMMA}.gemma2",
        lora_builder=f"{GEMMA}.lora_gemma2",
        has_window=True,
        head_dim=config["head_dim"],
        hidden_capping_value=config["attn_logit_softcapping"],
        final_capping_value=config["final_logit_softcapping"],
        sliding_window_size=config["sliding_window"],
        query_pre_attn_scalar=config["query_pre_attn_scalar"],
    )


def _phi3(config: Config) -> Architecture:
    """Phi-3 mini and medium, and Phi-4."""
    return _architecture(config, "phi3", "PHI3_MINI")


def _qwen2(config: Config) -> Architecture:
    """Qwen 2 and 2.5; `sliding_window` means nothing without `use_sliding_window`."""
    tied = bool(config["tie_word_embeddings"])
    return _architecture(config, "qwen2", "QWEN2", has_window=True, tie_word_embeddings=tied)


def _qwen3(config: Config) -> Architecture:
    """Qwen 3, whose weights have the names of a Qwen 2's, and two norms more in each layer."""
    return _architecture(
        config,
        "qwen3",
        "QWEN2",
        builder=f"{QWEN3}.qwen3",
        lora_builder=f"{QWEN3}.lora_qwen3",
        has_window=True,
        head_dim=config["head_dim"],
        tie_word_embeddings=bool(config["tie_word_embeddings"]),
    )


def _architecture(
    config: Config,
    name: str,
    model_type: str,
    builder: str = "",
    lora_builder: str = "",
    has_window: bool = False,
    **arguments: Any,
) -> Architecture:
    reaches = [config["max_position_embeddings"]]
    if config["sliding_window"] and not has_window:
        reaches.append(config["sliding_window"])
    common = {ours: config[theirs] for ours, theirs in NAMES.items()} | {"rope_base": read_rope(config)["rope_theta"]}
    return Architecture(
        builder=builder or f"torchtune.models.{name}.{name}",
        lora_builder=lora_builder or f"torchtune.models.{name}.lora_{name}",
        model_type=model_type,
        arguments=common | arguments,
        max_seq_len=min(reaches),
        tied=bool(config["tie_word_embeddings"]),
    )


NAMES = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "embed_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
    "norm_eps": "rms_norm_eps",
}
"""torchtune's name for each size, and config.json's."""

DEFAULTS: Mapping[str, Any] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "sliding_window": None,
}
"""What transformers takes for what config.json leaves out; None is as many heads as for queries, and hidden size over
heads."""

ALLOWED: Mapping[str, Sequence[Any]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "use_bidirectional_attention": (False, None),
    "quantization_config": (None,),
}
"""What the builders can do, where config.json says anything."""

GELU = ("gelu_pytorch_tanh", None)

FAMILIES: Mapping[str, Family] = {
    "llama": Family(_llama, rope_types=("default", "llama3")),
    "mistral": Family(_mistral, defaults={"num_key_value_heads": 8, "sliding_window": 4096}),
    "gemma": Family(
        _gemma,
        defaults={
            "num_key_value_heads": 16,
            "head_dim": 256,
            "tie_word_embeddings": True,
            "hidden_act": "gelu_pytorch_tanh",
        },
        # "gelu" is how Google's first files spell the tanh approximation; transformers reads it so.
        allowed={"tie_word_embeddings": (True,), "hidden_act": (*GELU, "gelu"), "hidden_activation": GELU},
        has_head_dim=True,
    ),
    "gemma2": Family(
        _gemma2,
        defaults={
            "num_key_value_heads": 4,
            "head_dim": 256,
            "tie_word_embeddings": True,
            "hidden_act": "gelu_pytorch_tanh",
            "sliding_window": 4096,
            "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        allowed={"tie_word_embeddings": (True,), "hidden_act": GELU, "hidden_activation": GELU},
        has_head_dim=True,
    ),
    "phi3": Family(_phi3, allowed={"tie_word_embeddings": (False,)}),
    "qwen2": Family(_qwen2, defaults={"num_key_value_heads": 32}),
    "qwen3": Family(_qwen3, defaults={"num_key_value_heads": 32, "head_dim": 128}, has_head_dim=True),
}
"""By `model_type` of config.json."""


def read_rope(config: Config) -> dict[str, Any]:
    """How positions are rotated, as transformers reads it: `rope_scaling` goes before `rope_parameters`."""
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    longest = config["max_position_embeddings"]
    outside = {"rope_theta": config.get("rope_theta", 10_000.0), "original_max_position_embeddings": longest}
    return outside | {"partial_rotary_factor": config.get("partial_rotary_factor")} | given


def rope_type(config: Config) -> str:
    """The kind of rotary embeddings."""
    rope = read_rope(config)
    if any(isinstance(value, Mapping) for value in rope.values()):
        return "one for each kind of layer"
    return rope.get("rope_type") or rope.get("type") or "default"
