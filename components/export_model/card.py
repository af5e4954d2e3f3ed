"""The model card of an export: what it is, how it was trained, how good it is, how to load it."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_finetune.components.export_model.addresses import last_part, public
from kfp_finetune.components.export_model.licences import LICENCES
from kfp_finetune.components.export_model.markdown import block, code, inline, link, table
from kfp_finetune.components.export_model.publish.layout import QUANTIZED_FOLDER
from kfp_finetune.errors import UserError
from kfp_finetune.reports.numbers import number
from kfp_finetune.series import MERGED_FOLDER
from kfp_finetune.sources.hub_address import is_hub_name, parse_address
from kfp_finetune.sources.redaction import redact
from kfp_finetune.training.epochs import ADAPTER_FOLDER
from kfp_finetune.training.exporting import INT4, INT8
from kfp_finetune.training.plan import CAUSAL_LM, Plan

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

HUB_TASKS = {
    CAUSAL_LM: "text-generation",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForQuestionAnswering": "question-answering",
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForImageClassification": "image-classification",
}
"""By the class that loads a model, what the Hub calls its task."""

METHODS = {
    INT8: "to eight bits, each row with a scale of its own",
    INT4: "to four bits, each group of a row with a scale and a zero of its own, for GPUs of NVIDIA from compute "
    "capability 8.0",
}
"""What a quantised copy is, in words."""

IMAGES = "AutoModelForImageClassification"
NAME_HERE = "ORGANISATION/NAME"
"""Stands in the examples for the place that a model is loaded from."""


@dataclass(frozen=True)
class Provenance:
    """What a plan does not say of where a model came from.

    Args:
        base_revision: The base model's, as exactly as its source said it.
        dataset_revision: The same of the dataset.
        run_link: Address of the run's page, or its id.
        settings: The training's, by name; whatever has a value is shown.
    """

    base_revision: str = ""
    dataset_revision: str = ""
    run_link: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def model_card(
    plan: Plan,
    evaluation: Mapping[str, Any],
    has_adapter: bool,
    provenance: Provenance | None = None,
    export: Mapping[str, Any] | None = None,
) -> str:
    """The text of README.md; nothing that came from outside can add to its metadata or its layout.

    Args:
        plan: The training.
        evaluation: What its evaluation.json says; empty if there is none.
        has_adapter: Whether an adapter lies beside the merged weights.
        provenance: What the plan does not say.
        export: What the export's manifest says of its settings and of the quantised copy, if there is one.
    """
    from huggingface_hub import ModelCard, ModelCardData

    provenance = provenance or Provenance()
    figures = _figures(evaluation)
    base, dataset = hub_repository("model", plan.origin or plan.base), hub_repository("dataset", plan.dataset)
    licence, licence_name = _licence(plan.license)
    title = f"{last_part(plan.origin or plan.base)}, fine-tuned"
    data = ModelCardData(
        base_model=base or None,
        base_model_relation="finetune" if base else None,
        datasets=[dataset] if dataset else None,
        eval_results=_results(plan, _of_whole_tasks(figures, evaluation), dataset) or None,
        library_name="transformers",
        model_name=title,
        pipeline_tag=HUB_TASKS.get(plan.transformer_type),
        tags=["kfp-finetune", plan.trainer, plan.method],
        license=licence,
        license_name=licence_name,
    )
    body = [
        f"# {inline(title)}",
        _summary(plan, base),
        *table("Before and after", ["Figure", "Base model", "This model"], _compared(figures)),
        *_how_measured(evaluation),
        *table("How it was trained", ["", ""], _facts(plan, evaluation, provenance)),
        *table("Settings", ["Name", "Value"], _settings(provenance.settings)),
        *_loading(plan, has_adapter, base),
        *_quantized(export or {}),
    ]
    text = "\n\n".join(body)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n"))


def hub_repository(what: str, address: str) -> str:
    """The name of a repository on the Hub, ORGANISATION/NAME or NAME; empty for any other address.

    Args:
        what: "model" or "dataset".
        address: As the user wrote it.
    """
    rest = address.removeprefix("hf://")
    if rest == address and (not is_hub_name(address) or Path(address).exists()):
        return ""
    try:
        return parse_address(what, address, rest).repository
    except UserError:
        return ""


def _licence(stated: str) -> tuple[str | None, str | None]:
    """The base's licence in the Hub's terms, which knows a list and else wants "other" and a name."""
    if stated.lower() in LICENCES:
        return stated.lower(), None
    name = re.sub(r"[^a-z0-9.+-]+", "-", redact(stated.lower())).strip("-")[:60]
    return ("other", name) if name else (None, None)


def _figures(evaluation: Mapping[str, Any]) -> dict[str, tuple[float | None, float]]:
    """Each figure of the held-out rows and of the benchmarks, of the base and of the trained model."""
    own = ("loss", "perplexity")
    pairs = {name: (evaluation.get(f"{name}_before"), evaluation.get(f"{name}_after")) for name in own}
    before = _mapping(evaluation.get("figures_before"))
    pairs |= {name: (before.get(name), after) for name, after in _mapping(evaluation.get("figures_after")).items()}
    for task, found in _mapping(evaluation.get("benchmarks")).items():
        pairs |= {f"{task}.{name}": (both.get("base"), both.get("tuned")) for name, both in _mapping(found).items()}
    numbers = {str(name): (_finite(before), _finite(after)) for name, (before, after) in pairs.items()}
    return {name: (before, after) for name, (before, after) in numbers.items() if after is not None}


def _of_whole_tasks(
    figures: Mapping[str, tuple[float | None, float]], evaluation: Mapping[str, Any]
) -> Mapping[str, tuple[float | None, float]]:
    """The figures without those of benchmarks of which only some questions were asked."""
    is_part = bool(_mapping(evaluation.get("tasks")).get("limit"))
    return {name: both for name, both in figures.items() if not (is_part and "." in name)}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _results(plan: Plan, figures: Mapping[str, tuple[float | None, float]], dataset: str) -> "list[EvalResult]":
    from huggingface_hub import EvalResult

    task = HUB_TASKS.get(plan.transformer_type)
    if task is None:
        return []
    own = (dataset or "private", dataset or "The training's own held-out rows", "held out")
    results = []
    for name, (_, after) in figures.items():
        benchmark, figure = name.split(".", 1) if "." in name else ("", name)
        kind, title, split = (_word(benchmark), f"{benchmark} of lm-evaluation-harness", None) if benchmark else own
        results.append(
            EvalResult(
                task_type=task,
                dataset_type=kind,
                dataset_name=title,
                dataset_split=split,
                metric_type=_word(figure),
                metric_value=round(after, 6),
            )
        )
    return results


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", redact(name), flags=re.ASCII)[:60]


def _summary(plan: Plan, base: str) -> str:
    way = {"full": "all weights were trained"}.get(plan.method, f"{inline(plan.method)} trained an adapter")
    kind = "preferences in " if plan.preference else ""
    origin = f"[{inline(base)}](https://huggingface.co/{base})" if base else code(public(plan.origin or plan.base))
    return (
        f"{origin}, fine-tuned on {kind}{code(public(plan.dataset))}: {way}, with {inline(plan.trainer)}. "
        f"`{plan.transformer_type}` of transformers loads it."
    )


def _compared(figures: Mapping[str, tuple[float | None, float]]) -> list[Sequence[str]]:
    return [
        (code(name), "" if before is None else number(before), number(after))
        for name, (before, after) in figures.items()
    ]


def _how_measured(evaluation: Mapping[str, Any]) -> Iterable[str]:
    """Under which conditions benchmarks were run: figures of a few questions are no results of the benchmark."""
    tasks = _mapping(evaluation.get("tasks"))
    if not evaluation.get("benchmarks"):
        return
    limit, shots = tasks.get("limit"), tasks.get("num_fewshot")
    questions = f"the first {limit} questions of each task" if limit else "all questions"
    examples = "as many solved examples as each task says" if shots is None else f"{shots} solved examples before each"
    form = "put as a conversation" if tasks.get("apply_chat_template") else "put as plain text"
    yield f"Benchmarks by lm-evaluation-harness: {questions}, {examples}, {form}."


def _facts(plan: Plan, evaluation: Mapping[str, Any], provenance: Provenance) -> list[Sequence[str]]:
    rows = [("train on", plan.train.get("rows")), ("hold out", plan.held_out.get("rows"))]
    facts: list[tuple[str, str]] = [
        ("Base model", code(public(plan.origin or plan.base))),
        ("Began with", code(public(plan.base)) if plan.origin and plan.origin != plan.base else ""),
        ("Revision of what it began with", code(provenance.base_revision)),
        ("Licence of the base", code(plan.license)),
        ("Dataset", code(public(plan.dataset))),
        ("Dataset's revision", code(provenance.dataset_revision)),
        ("Method", code(plan.method)),
        ("Learned", inline(plan.learns)),
        ("Trained with", code(plan.trainer)),
        ("Epochs", f"{plan.epochs:,}"),
        ("Exported epoch", code(str(evaluation.get("epoch", "")))),
        ("Updates of the weights", f"{plan.total_steps:,}" if plan.total_steps else ""),
        ("Processes", f"{plan.num_nodes:,} × {plan.num_procs_per_node:,}"),
        ("Dtype of training", code(plan.dtype)),
        ("LoRA's alpha / rank", f"{plan.lora_scale:g}" if plan.lora_scale else ""),
        *((f"Rows to {name}", f"{count:,}") for name, count in rows if isinstance(count, int)),
        ("Training", code(plan.key)),
        ("Run", link(provenance.run_link)),
    ]
    return [fact for fact in facts if fact[1]]


def _settings(settings: Mapping[str, Any]) -> list[Sequence[str]]:
    """Settings that have a value; mappings as JSON."""
    shown = {name: value for name, value in settings.items() if value not in (None, "", {}, [])}
    return [
        (code(name), code(value if isinstance(value, str) else json.dumps(value, default=str)))
        for name, value in shown.items()
    ]


def _loading(plan: Plan, has_adapter: bool, base: str) -> Iterable[str]:
    kind = plan.transformer_type if plan.transformer_type in HUB_TASKS else "AutoModel"
    reader = "AutoImageProcessor" if kind == IMAGES else "AutoTokenizer"
    variable = "processor" if kind == IMAGES else "tokenizer"
    yield (
        f"## How to load it\n\n`{NAME_HERE}` stands for the repository or folder where this was published. In an "
        f"export on a volume the model is in `{MERGED_FOLDER}/`, and the other folders lie beside it."
    )
    yield block(
        "python",
        f"from transformers import {', '.join(sorted((kind, reader)))}",
        "",
        f'model = {kind}.from_pretrained("{NAME_HERE}", dtype="auto")',
        f'{variable} = {reader}.from_pretrained("{NAME_HERE}")',
    )
    if has_adapter:
        yield "The adapter alone, on the model that training began with (peft wants no torchao, or 0.16):"
        began = hub_repository("model", plan.base) or base or "THE/BASE"
        yield block(
            "python",
            "from peft import PeftModel",
            f"from transformers import {kind}",
            "",
            f'base = {kind}.from_pretrained({json.dumps(began)}, dtype="auto")',
            f'model = PeftModel.from_pretrained(base, "{NAME_HERE}", subfolder="{ADAPTER_FOLDER}")',
        )
    if kind == CAUSAL_LM:
        yield "A server with vLLM:"
        yield block("sh", f"vllm serve {NAME_HERE}")


def _quantized(export: Mapping[str, Any]) -> Iterable[str]:
    """The copy with fewer bits: what it is, what it costs and how to load it."""
    bits = export.get("quantize")
    if not bits:
        return
    perplexity = f"{number(export['quantized_perplexity'])} ({export['perplexity_increase']:+.2%})"
    rows = [
        ("Bytes of weights", f"{export['merged_bytes']:,}", f"{export['quantized_bytes']:,}"),
        (f"Perplexity, {export['perplexity_tokens']:,} held-out tokens", number(export["perplexity"]), perplexity),
    ]
    yield from table(f"In {bits}", ["", "This model", f"In {bits}"], rows)
    yield (
        f"`{QUANTIZED_FOLDER}/` holds the same model with its matrices quantised by torchao {METHODS[bits]}. "
        "Embeddings and the output's matrix are as they were."
    )
    yield block(
        "python",
        f"from transformers import {CAUSAL_LM}  # with torchao installed",
        "",
        f'model = {CAUSAL_LM}.from_pretrained("{NAME_HERE}", subfolder="{QUANTIZED_FOLDER}", device_map="auto")',
    )
