"""Everything that is measured of one model, in as many processes as there are GPUs."""

import gc
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from kfp_finetune.chat import load_tokenizer
from kfp_finetune.components.evaluate_model.answers import write_answers
from kfp_finetune.components.evaluate_model.loss import Share, held_out_loss
from kfp_finetune.components.evaluate_model.pairs import Pairs, are_pairs, pair_log_probabilities
from kfp_finetune.components.evaluate_model.settings import FEWEST_QUESTIONS, EvaluationSettings
from kfp_finetune.launch.process import Topology, run_torchrun

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
ROOM = 0.7
"""Share of a GPU's memory that weights may take; the rest is for logits and a cache of what was read."""

WORKER = "kfp_finetune.components.evaluate_model.worker"


@dataclass(frozen=True)
class Work:
    """What is to be measured of one model.

    Args:
        what: Its name, for the progress.
        model: The model's directory.
        tokenizer: The directory with its tokenizer.
        dtype: "bf16" or "fp32".
        training: The training's folder, with the held-out rows and the prompts; empty to leave these out.
        tasks: Settings of tasks to run, as `Plan.evaluation` has them; empty for none.
        root: The workspace's, where the tasks' data lies.
        rounded_to: "int8" or "int4" to round its matrices first; empty for exact ones.
    """

    what: str
    model: str
    tokenizer: str
    dtype: str
    training: str = ""
    tasks: Mapping[str, Any] = field(default_factory=dict)
    root: str = ""
    rounded_to: str = ""


@dataclass(frozen=True)
class Measured:
    """What was found.

    Args:
        loss: In nats a token.
        tokens: How many were looked at.
        answers: To each prompt.
        tasks: Figures of the tasks; see `tasks.Figures`.
        pairs: Of rows that are pairs of answers, in place of the loss; see `pairs.Pairs`.
    """

    loss: float = 0.0
    tokens: int = 0
    answers: Sequence[str] = ()
    tasks: Mapping[str, Any] = field(default_factory=dict)
    pairs: Pairs = ()


def measure(work: Work, num_procs: int = 0) -> Measured:
    """Measures a model here: on every GPU there is, or on the CPUs.

    Args:
        work: What is to be measured.
        num_procs: Processes that share the work; 0 for one on each GPU that holds the model, else one.

    Raises:
        LaunchError: If one of several processes failed.
    """
    num_procs = num_procs or count_procs(Path(work.model))
    if work.tasks:
        # The harness fails where a process has no question.
        num_procs = max(1, min(num_procs, work.tasks.get(FEWEST_QUESTIONS, num_procs)))
    if num_procs == 1:
        measured = measure_share(work, Share())
        _free_memory()
        return measured
    with tempfile.TemporaryDirectory(prefix="kfp-finetune-") as folder:
        wanted, found = Path(folder, "work.json"), Path(folder, "measured.json")
        wanted.write_text(json.dumps(asdict(work)))
        run_torchrun(WORKER, [str(wanted), str(found)], Topology.one_machine(num_procs), Path(folder), _echo)
        return Measured(**json.loads(found.read_text()))


def _free_memory() -> None:
    """The harness holds its model in a cycle of references; the next one may need its place."""
    gc.collect()
    torch.cuda.empty_cache()


def _echo(line: str) -> None:
    print(line, flush=True)


def count_procs(model: Path) -> int:
    """How many processes measure a model: one on each GPU, unless one GPU is too small for it.

    Args:
        model: The model's directory.
    """
    gpus = torch.cuda.device_count()
    return gpus if gpus > 1 and _fits(model) else 1


def _fits(model: Path) -> bool:
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    return weights < ROOM * torch.cuda.get_device_properties(0).total_memory


def measure_share(work: Work, share: Share) -> Measured:
    """Measures a model in this process, with the others if there are any.

    Args:
        work: What is to be measured.
        share: This process's share.
    """
    model = _load(Path(work.model), DTYPES[work.dtype], share)
    if work.rounded_to:
        from kfp_finetune.rounding import round_matrices

        round_matrices(model, work.rounded_to)
    tokenizer = load_tokenizer(Path(work.tokenizer))
    found = Measured()
    if work.training:
        rows = datasets.load_from_disk(str(Path(work.training, "tokens", "held_out")))
        prompts = read_prompts(Path(work.training))
        found = _measure_rows(work.what, model, rows, share)
        answers = write_answers(model, tokenizer, [prompt["prompt_ids"] for prompt in prompts], share)
        found = replace(found, answers=answers)
    if work.tasks:
        found = replace(found, tasks=_run_tasks(work, model, tokenizer, share))
    return found


def _measure_rows(what: str, model: PreTrainedModel, rows: datasets.Dataset, share: Share) -> Measured:
    if are_pairs(rows):
        return Measured(pairs=pair_log_probabilities(what, model, rows, share))
    loss, tokens = held_out_loss(what, model, rows, share)
    return Measured(loss, tokens)


def read_prompts(training: Path) -> list[dict[str, Any]]:
    """The prompts that both models answer, each with its tokens and the answer expected."""
    return list(json.loads((training / "samples.json").read_text()))


def _run_tasks(work: Work, model: PreTrainedModel, tokenizer: Any, share: Share) -> Mapping[str, Any]:
    from kfp_finetune.components.evaluate_model.task_data import located, tasks_read_from
    from kfp_finetune.components.evaluate_model.tasks import run_tasks

    known = EvaluationSettings.__dataclass_fields__
    settings = EvaluationSettings(**{name: value for name, value in work.tasks.items() if name in known})
    with tasks_read_from(located(Path(work.root), settings.data)):
        return run_tasks(f"{work.what} on tasks", model, tokenizer, settings, share)


def _load(path: Path, dtype: torch.dtype, share: Share) -> PreTrainedModel:
    """The model on this process's GPU, spread over all of them if it is too large for one, or on the CPUs."""
    spread = torch.cuda.device_count() > 1 and share.world_size == 1 and not _fits(path)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        **({"device_map": "auto"} if spread else {}),
    )
    if torch.cuda.is_available() and not spread:
        model = model.to(torch.device("cuda", share.rank))
    return model.eval()
