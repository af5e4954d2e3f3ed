"""LoRA and DoRA with peft: what the user may set, the adapter on a model, and its way into the model's own weights."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from kfp_finetune.components.transformers_train.arguments import check_value, unknown
from kfp_finetune.components.transformers_train.lora_modules import (
    ALL_LINEAR,
    WHAT,
    heads,
    inside,
    is_convolutional,
    is_meant,
    misfits,
    running_norms,
    targets,
)
from kfp_finetune.empty_models import empty_model
from kfp_finetune.errors import Problem, StepError

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PretrainedConfig, PreTrainedModel

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_SWITCH = (bool, "true or false")
_TEXTS = (Annotated[list[str], Field(min_length=1)], "a list of names")
_PATTERN = (Annotated[list[str], Field(min_length=1)] | str, "a list of names, or a regular expression")
LORA_VALUES: Mapping[str, tuple[Any, str]] = {
    "r": (Annotated[int, Field(ge=1, le=4096)], "a whole number from 1 to 4096"),
    "lora_alpha": (Annotated[float, Field(gt=0)], "a number above 0"),
    "lora_dropout": (Annotated[float, Field(ge=0, lt=1)], "a number from 0, below 1"),
    "target_modules": (_PATTERN[0], f'{_PATTERN[1]}, or "{ALL_LINEAR}"'),
    "exclude_modules": _PATTERN,
    "modules_to_save": _TEXTS,
    "layers_to_transform": (Annotated[list[int], Field(min_length=1)] | int, "a number, or a list of numbers"),
    "layers_pattern": (Annotated[list[str], Field(min_length=1)] | str, "a name, or a list of names"),
    "rank_pattern": (dict[str, Annotated[int, Field(ge=1, le=4096)]], "an object of ranks by module"),
    "alpha_pattern": (dict[str, Annotated[float, Field(gt=0)]], "an object of alphas by module"),
    "bias": (Literal["none", "all", "lora_only"], '"none", "all" or "lora_only"'),
    "lora_bias": _SWITCH,
    "use_rslora": _SWITCH,
    "use_dora": _SWITCH,
    "init_lora_weights": (
        bool | Literal["gaussian", "orthogonal"],
        'true, false, "gaussian" or "orthogonal" (the others change the weights below, or read data)',
    ),
}
"""What the user may set, with its type and the type's words."""

DECIDED: Mapping[str, tuple[str, ...]] = {
    "the transformer_type and the model say it": (
        "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
        "inference_mode", "fan_in_fan_out", "runtime_config", "ensure_weight_tying",
    ),
    "it reads data, or needs packages that are not there": (
        "loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_config", "megatron_core",
        "use_qalora", "qalora_group_size",
    ),
    "here an adapter is put on modules, and merged into the model afterwards": (
        "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "monteclora_config",
        "target_parameters", "trainable_token_indices", "use_bdlora", "velora_config",
    ),
}  # fmt: skip
"""Why what peft knows is not for a user to set, and its names."""

TASK_TYPES: Mapping[str, str | None] = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForQuestionAnswering": None,  # peft's own class for it keeps segment ids from the model
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForMaskedLM": None,
    "AutoModelForImageClassification": None,
}
"""What peft calls the transformer types; it has no name for some, and treats these as any model."""

KEEP_HEAD = frozenset({"AutoModelForCausalLM", "AutoModelForMaskedLM"})
"""The types whose head has been trained with the model; that of the others is new, and trained whole."""


def load_peft() -> ModuleType:
    """Imports peft beside a torchao that is older than it wants.

    Whenever an adapter is put on a layer, peft asks whether the layer is one of torchao's, and fails for torchao below
    0.16, which torchtune in turn cannot do without. It asks a function that remembers its answer. So that is called
    once while torchao looks as if it were not installed; nothing else sees that, and whoever uses torchao goes on.
    """
    import peft
    from peft.import_utils import is_torchao_available

    try:
        is_torchao_available()
    except ImportError:
        with _hidden("torchao"):
            is_torchao_available()
    return peft


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """A package cannot be found: Python takes None in `sys.modules` for that."""
    modules: dict[str, Any] = sys.modules
    loaded = modules.get(name)
    modules[name] = None
    try:
        yield
    finally:
        if loaded is None:
            del modules[name]
        else:
            modules[name] = loaded


def check_values(given: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with names and values by themselves; known without torch and peft.

    Args:
        given: The user's `lora_config`.
    """
    if not isinstance(given, Mapping):
        return [
            Problem(WHAT, repr(given), "an object with values by name; {} for no LoRA", "Correct it and run again.")
        ]
    problems: list[Problem | None] = []
    for name, value in given.items():
        if name in LORA_VALUES:
            problems.append(check_value(f"{WHAT}.{name}", value, *LORA_VALUES[name]))
        elif reason := next((why for why, names in DECIDED.items() if name in names), None):
            problems.append(Problem(f"{WHAT}.{name}", repr(value), f"no {name}: {reason}", "Take it out."))
        else:
            problems.append(unknown(WHAT, name, list(LORA_VALUES)))
    return [problem for problem in problems if problem]


def check_lora(given: Mapping[str, Any], transformer_type: str, config: "PretrainedConfig | Path") -> list[Problem]:
    """What is wrong with the user's `lora_config`; the adapter is really put on the model, without its weights.

    Args:
        given: By name, as `peft.LoraConfig` calls them; nothing for no LoRA.
        transformer_type: What is trained.
        config: Of the model, or the model's directory; with the labels that it is trained with.
    """
    problems = check_values(given)
    if problems or not given:
        return problems
    model = empty_model(transformer_type, config)
    if problems := misfits(given, model):
        return problems
    if transformer_type not in KEEP_HEAD and not heads(model) and "modules_to_save" not in given:
        return [
            Problem(
                f"{WHAT}.modules_to_save",
                f"nothing for {type(model).__name__}, whose new head is not known",
                "the names of the modules that are trained whole",
                f"Give the head's name; the model has {', '.join(name for name, _ in model.named_children())}.",
            )
        ]
    possible = ", ".join(targets(model)) or "nothing"
    try:
        add_adapter(model, given, transformer_type)
    except Exception as error:
        return [
            Problem(
                WHAT,
                f"{dict(given)!r}, at which peft fails: {error or type(error).__name__}",
                f"what fits {type(model).__name__}, whose target_modules can be {possible}",
                "Correct the values or take them out.",
            )
        ]
    return []


def lora_config(
    given: Mapping[str, Any], transformer_type: str, model: "PreTrainedModel", new: Sequence[str] = ()
) -> "LoraConfig":
    """What peft is asked for.

    Modules that the user does not name are those that peft names for this kind of model, or all linear ones.

    Args:
        given: The user's `lora_config`, without a problem.
        transformer_type: What is trained.
        model: Without an adapter.
        new: Names of weights that the base's files do not have; their modules are trained whole.
    """
    peft = load_peft()
    values = dict(given)
    if "target_modules" not in values:
        values["target_modules"] = _default_targets(model)
    whole = _trained_whole(given, transformer_type, model)
    made = list(dict.fromkeys(name.rpartition(".")[0] for name in new if not inside(whole, name)))
    if whole or made:
        values["modules_to_save"] = [*whole, *made]
    if made:
        values["exclude_modules"] = [*_listed(values.get("exclude_modules")), *made]
    return peft.LoraConfig(task_type=TASK_TYPES[transformer_type], **values)


def _listed(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def add_adapter(
    model: "PreTrainedModel", given: Mapping[str, Any], transformer_type: str, new: Sequence[str] = ()
) -> "PeftModel":
    """Puts an adapter on a model; it, a new head and other new weights are all that is trained.

    Args:
        model: Changed in place.
        given: The user's `lora_config`, without a problem.
        transformer_type: What is trained.
        new: Names of weights that the base's files do not have.
    """
    peft = load_peft()
    return peft.get_peft_model(model, lora_config(given, transformer_type, model, new))


def merge(model: "PreTrainedModel", directory: Path) -> "PreTrainedModel":
    """Adds a trained adapter to a model's weights, and puts the trained head in its place.

    Args:
        model: As it was before the adapter was trained; changed in place.
        directory: What `PeftModel.save_pretrained` wrote.

    Returns:
        A plain model of transformers.

    Raises:
        StepError: If the directory has not what the adapter consists of.
    """
    from safetensors.torch import load_file

    peft = load_peft()
    if missing := [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (directory / name).is_file()]:
        raise StepError(f"{directory} has no {' and no '.join(missing)}, so it holds no adapter")
    config = peft.LoraConfig.from_pretrained(str(directory), local_files_only=True)
    adapted = peft.get_peft_model(model, config)
    weights = load_file(directory / ADAPTER_WEIGHTS)
    expected = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    foreign = {name for name in weights.keys() - expected if ".lora_" in name}
    if wrong := (expected - weights.keys()) | foreign:
        raise StepError(f"{directory} holds no adapter for this model: {', '.join(sorted(wrong))}")
    peft.set_peft_model_state_dict(adapted, weights)
    return adapted.merge_and_unload(safe_merge=True)


def _default_targets(model: "PreTrainedModel") -> Any:
    """What peft names for a kind of model, if this one has it; else all that an adapter can be put on."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    names = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type)
    if names and any(is_meant(names, name) for name, _ in model.named_modules()):
        return names
    return targets(model) if is_convolutional(model) else ALL_LINEAR


def _trained_whole(given: Mapping[str, Any], transformer_type: str, model: "PreTrainedModel") -> list[str]:
    """The modules beside an adapter: the user's, a new head, and norms whose running figures no adapter would hold."""
    named = given.get("modules_to_save", [])
    head = [] if transformer_type in KEEP_HEAD else heads(model)
    there = [*head, *(name for name, _ in model.named_modules() if is_meant(named, name))]
    norms = [name for name in running_norms(model) if not inside(there, name)]
    return list(dict.fromkeys([*named, *head, *norms]))
