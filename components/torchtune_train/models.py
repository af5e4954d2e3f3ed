"""From a model's config.json to the torchtune builder that computes the very same function.

What config.json asks for and torchtune's builder would silently leave out is refused by name.
The mapping was checked logit by logit against transformers; see tests/components/torchtune_train/test_models.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_finetune.errors import Problem, UserError

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """How torchtune builds a model.

    Args:
        builder: Dotted name of the function that builds it.
        lora_builder: Dotted name of the function that builds it with an adapter.
        model_type: torchtune's name for the layout of its weights.
        arguments: Of the builder, but for the sequence length.
        max_seq_len: Longest sequence, in tokens, that its positions are made for.
        tied: Whether output and input embeddings are one matrix.
    """

    builder: str
    lora_builder: str
    model_type: str
    arguments: dict[str, Any]
    max_seq_len: int
    tied: bool


def read_architecture(config: Config) -> Architecture:
    """The torchtune builder for a model.

    Args:
        config: The content of config.json, in the spelling of transformers 4 or 5.

    Raises:
        UserError: If the architecture is not supported, or asks for something that the builder cannot do.
    """
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        raise UserError(
            [
                Problem(
                    "model",
                    f"the architecture {model_type!r}",
                    f"one of {', '.join(sorted(FAMILIES))} (model_type in config.json)",
                    "Choose a model of a supported architecture.",
                )
            ]
        )
    problems = _missing(config) or _unsupported(config)
    if problems:
        raise UserError(problems)
    return FAMILIES[model_type](config)


def _llama(config: Config) -> Architecture:
    rope = _rope(config)
    arguments = _common(config) | {
        "scale_factor": int(rope.get("factor", 1)) if _rope_type(config) == "llama3" else 1,
        "tie_word_embeddings": _tied(config),
    }
    return Architecture(
        builder="torchtune.models.llama3_2.llama3_2",
        lora_builder="torchtune.models.llama3_2.lora_llama3_2",
        model_type="LLAMA3_2",
        arguments=arguments,
        max_seq_len=config["max_position_embeddings"],
        tied=_tied(config),
    )


def _qwen2(config: Config) -> Architecture:
    return Architecture(
        builder="torchtune.models.qwen2.qwen2",
        lora_builder="torchtune.models.qwen2.lora_qwen2",
        model_type="QWEN2",
        arguments=_common(config) | {"tie_word_embeddings": _tied(config)},
        max_seq_len=config["max_position_embeddings"],
        tied=_tied(config),
    )


FAMILIES: Mapping[str, Callable[[Config], Architecture]] = {"llama": _llama, "qwen2": _qwen2}
"""By `model_type` of config.json: Llama 3.2 (and Llamas of its shape), Qwen 2 and 2.5."""

NAMES = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "embed_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
    "norm_eps": "rms_norm_eps",
}
"""torchtune's name for each size, and config.json's."""


def _common(config: Config) -> dict[str, Any]:
    sizes = {ours: config[theirs] for ours, theirs in NAMES.items()}
    return sizes | {
        "num_kv_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "rope_base": _rope(config).get("rope_theta", config.get("rope_theta", 10_000.0)),
    }


def _tied(config: Config) -> bool:
    return bool(config.get("tie_word_embeddings", False))


def _rope(config: Config) -> Mapping[str, Any]:
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _rope_type(config: Config) -> str:
    rope = _rope(config)
    return rope.get("rope_type") or rope.get("type") or "default"


def _missing(config: Config) -> list[Problem]:
    needed = [*NAMES.values(), "max_position_embeddings"]
    absent = [name for name in needed if not isinstance(config.get(name), int | float)]
    if not absent:
        return []
    return [
        Problem(
            "model", f"a config.json without {', '.join(absent)}", "every size of the model", "Fetch config.json again."
        )
    ]


def _unsupported(config: Config) -> list[Problem]:
    heads, width = config["num_attention_heads"], config["hidden_size"]
    rope = _rope(config)
    is_llama = config["model_type"] == "llama"
    scaled = ("low_freq_factor", 1), ("high_freq_factor", 4), ("original_max_position_embeddings", 8192)
    checks = {
        "hidden_act": (config.get("hidden_act", "silu"), ["silu"]),
        "head_dim": (config.get("head_dim") or width // heads, [width // heads]),
        "attention_bias": (bool(config.get("attention_bias", False)), [False]),
        "mlp_bias": (bool(config.get("mlp_bias", False)), [False]),
        "use_sliding_window": (bool(config.get("use_sliding_window", False)), [False]),
        "partial_rotary_factor": (rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1, [1]),
        "rope_type": (_rope_type(config), ["default", "llama3"] if is_llama else ["default"]),
    }
    if _rope_type(config) == "llama3":
        checks |= {name: (rope.get(name, value), [value]) for name, value in scaled}
        checks["rope factor"] = (rope.get("factor", 1), [int(rope.get("factor", 1))])
    return [
        Problem(
            "model",
            f"{name} {value!r} in config.json",
            " or ".join(repr(option) for option in allowed),
            "torchtune would train this model wrong; choose another.",
        )
        for name, (value, allowed) in checks.items()
        if value not in allowed
    ]
