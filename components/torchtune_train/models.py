"""From a model's config.json to the torchtune builder that computes the very same function.

What config.json leaves out is taken as transformers takes it; what it asks for and torchtune's builder would silently
leave out is refused by name.
"""

from collections.abc import Sequence
from typing import Any

from kfp_finetune.components.torchtune_train.families import (
    ALLOWED,
    FAMILIES,
    NAMES,
    Architecture,
    Config,
    complete,
    read_rope,
    rope_type,
)
from kfp_finetune.errors import Problem, UserError

Checks = dict[str, tuple[Any, Sequence[Any]]]
"""By name: what config.json says, and what it may say."""


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
    problems = _missing(config) or _unsupported(complete(config))
    if problems:
        raise UserError(problems)
    return FAMILIES[model_type].build(complete(config))


def _missing(config: Config) -> list[Problem]:
    needed = {*NAMES.values(), "max_position_embeddings"} - {"num_key_value_heads"}
    absent = sorted(name for name in needed if not isinstance(config.get(name), int | float))
    if not absent:
        return []
    return [
        Problem(
            "model", f"a config.json without {', '.join(absent)}", "every size of the model", "Fetch config.json again."
        )
    ]


def _unsupported(config: Config) -> list[Problem]:
    family = FAMILIES[config["model_type"]]
    checks: Checks = {name: (config.get(name), allowed) for name, allowed in {**ALLOWED, **family.allowed}.items()}
    checks |= _shape_checks(config) | _rope_checks(config, family.rope_types)
    return [
        Problem(
            "model",
            f"{name} {value!r} in config.json",
            " or ".join(repr(option) for option in allowed if option is not None) or "none",
            "torchtune would train this model wrong; choose another.",
        )
        for name, (value, allowed) in checks.items()
        if value not in allowed
    ]


def _shape_checks(config: Config) -> Checks:
    layers = config["num_hidden_layers"]
    alternating = [("sliding_attention", "full_attention")[layer % 2] for layer in range(layers)]
    usual = alternating if config["model_type"] == "gemma2" else ["full_attention"] * layers
    heads = [name for name in config.get("architectures") or [] if not name.endswith("ForCausalLM")]
    checks: Checks = {"layer_types": (config.get("layer_types"), [None, usual]), "architectures": (heads, [[]])}
    if not FAMILIES[config["model_type"]].has_head_dim:
        checks["head_dim"] = (config["head_dim"], [config["hidden_size"] // config["num_attention_heads"]])
    return checks


def _rope_checks(config: Config, kinds: Sequence[str]) -> Checks:
    rope, kind = read_rope(config), rope_type(config)
    checks: Checks = {
        "rope_type": (kind, kinds),
        "partial_rotary_factor": (rope["partial_rotary_factor"], [None, 1]),
    }
    if kind == "llama3":
        constants = {"low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}
        checks |= {name: (rope.get(name), [value]) for name, value in constants.items()}
        factor = rope.get("factor")
        checks["rope factor"] = (factor, [factor if isinstance(factor, int | float) else "a number"])
    return checks
