"""Loss on the held-out tokens, and a few answers, of the base and of the tuned model."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from kfp_finetune.chat import IGNORED, load_tokenizer
from kfp_finetune.metrics import read_metrics
from kfp_finetune.progress import progress_printer
from kfp_finetune.publishing import write_atomically
from kfp_finetune.reports.evaluation import evaluation_report
from kfp_finetune.training.epochs import check_finished, choose_epoch, whole_epochs
from kfp_finetune.training.evaluation import EVALUATION_NAME
from kfp_finetune.training.plan import Plan
from kfp_finetune.workspace import REPORT_NAME, open_workspace

TOKENS_IN_BATCH = 4096
MAX_NEW_TOKENS = 96
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Evaluation:
    """How the tuned model compares with its base.

    Args:
        loss_before: Mean negative log-likelihood of the held-out answers' tokens under the base, in nats.
        loss_after: The same under the tuned model.
        tokens: How many tokens were compared.
        rows: In how many rows.
        epoch: The epoch that was compared: the newest, or the best of those kept.
        epoch_losses: The loss of each epoch that was looked at, by the epoch's name.
        samples: A few prompts, with the expected answer and both models' own.
    """

    loss_before: float
    loss_after: float
    tokens: int
    rows: int
    epoch: str
    epoch_losses: Mapping[str, float]
    samples: Sequence[dict[str, str]]


def evaluate(plan: Plan, workspace_root: str) -> Evaluation:
    """Compares a training's model with its base, or finds that this was done.

    The model is the newest epoch or, if the best is to be exported, the one of those kept with the least loss.

    Args:
        plan: The training.
        workspace_root: Absolute path of the mounted volume.

    Raises:
        UserError: If the training is not finished.
    """
    root = open_workspace(workspace_root).root
    training = root / plan.training
    known = training / EVALUATION_NAME
    if known.exists():
        print(f"training {plan.key} is evaluated already", flush=True)
        return Evaluation(**json.loads(known.read_text()))
    check_finished(training, plan.key, plan.epochs)
    epochs = list(whole_epochs(training).values())
    rows = datasets.load_from_disk(str(training / "tokens" / "held_out"))
    prompts = json.loads((training / "samples.json").read_text())
    base = root / plan.model
    tokenizer = load_tokenizer(base)
    before = _measure("evaluate base", base, plan.dtype, rows, prompts, tokenizer)
    compared = epochs if plan.export_checkpoint == "best" else epochs[-1:]
    measured = [_measure(f"evaluate {epoch.name}", epoch, plan.dtype, rows, prompts, tokenizer) for epoch in compared]
    best = min(range(len(measured)), key=lambda index: measured[index].loss)
    after = measured[best]
    choose_epoch(training, compared[best])
    samples = [
        {"prompt": prompt["prompt"], "expected": prompt["expected"], "base": theirs, "tuned": ours}
        for prompt, theirs, ours in zip(prompts, before.answers, after.answers, strict=True)
    ]
    losses = {epoch.name: figures.loss for epoch, figures in zip(compared, measured, strict=True)}
    evaluation = Evaluation(before.loss, after.loss, after.tokens, len(rows), compared[best].name, losses, samples)
    write_atomically(training / REPORT_NAME, _report(plan, evaluation, read_metrics(training / "metrics.jsonl")))
    write_atomically(known, json.dumps(asdict(evaluation), indent=2))
    return evaluation


@dataclass(frozen=True)
class _Measured:
    loss: float
    tokens: int
    answers: Sequence[str]


def _measure(
    what: str, path: Path, dtype: str, rows: datasets.Dataset, prompts: Sequence[dict[str, Any]], tokenizer: Any
) -> _Measured:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=DTYPES[dtype], local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    model = model.to(device).eval()
    loss, tokens = held_out_loss(what, model, rows)
    answers = [_answer(model, tokenizer, prompt["prompt_ids"]) for prompt in prompts]
    return _Measured(loss, tokens, answers)


@torch.inference_mode()
def held_out_loss(what: str, model: PreTrainedModel, rows: datasets.Dataset) -> tuple[float, int]:
    """Mean loss over all tokens that are not masked, whatever batch they fall in.

    Args:
        what: Name of the work, for its progress.
        model: In evaluation mode.
        rows: With `tokens` and `labels`.

    Returns:
        The loss in nats a token, and the number of tokens.
    """
    batches = batch_by_length([len(tokens) for tokens in rows["tokens"]], TOKENS_IN_BATCH)
    report = progress_printer(what, len(batches), "batch")
    total, count = 0.0, 0
    for done, indices in enumerate(batches, start=1):
        batch = rows[indices]
        tokens, mask = _pad(batch["tokens"], 0, model.device)
        labels, _ = _pad(batch["labels"], IGNORED, model.device)
        logits = model(input_ids=tokens, attention_mask=mask).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
        )
        total += float(loss)
        count += int((labels[:, 1:] != IGNORED).sum())
        report(done, loss=round(total / max(count, 1), 4))
    return total / max(count, 1), count


def batch_by_length(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Groups rows of like length, so that little is padded.

    Args:
        lengths: Of each row, in tokens.
        most_tokens: Tokens in a batch, padding included; a longer row is a batch of its own.

    Returns:
        Indices of the rows of each batch, longest rows first.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= most_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _pad(rows: Sequence[list[int]], value: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = [torch.tensor(row, device=device) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in tensors], batch_first=True)
    return padded, mask


def _answer(model: PreTrainedModel, tokenizer: Any, prompt_ids: Sequence[int]) -> str:
    prompt = torch.tensor([prompt_ids], device=model.device)
    written = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        repetition_penalty=1.2,
        eos_token_id=sorted(_end_tokens(model, tokenizer)),
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.decode(written[0, len(prompt_ids) :], skip_special_tokens=True).strip()


def _end_tokens(model: PreTrainedModel, tokenizer: Any) -> set[int]:
    """What ends an answer: the tokenizer's end token, and those of the model, such as Gemma's end of a turn."""
    known = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id} | set(known if isinstance(known, list) else [] if known is None else [known])


def _report(plan: Plan, evaluation: Evaluation, metrics: Sequence[dict[str, float]]) -> str:
    return evaluation_report(
        title=f"{plan.base}, before and after",
        facts=[
            ("Dataset", plan.dataset),
            ("Method", plan.method),
            ("Rows held out", f"{evaluation.rows:,}"),
            ("Tokens compared", f"{evaluation.tokens:,}"),
            ("Epoch", evaluation.epoch),
            *((f"Loss of {name}", f"{loss:.4f}") for name, loss in evaluation.epoch_losses.items()),
        ],
        losses=[
            ("Loss on held-out answers", evaluation.loss_before, evaluation.loss_after),
            ("Perplexity", perplexity(evaluation.loss_before), perplexity(evaluation.loss_after)),
        ],
        samples=list(evaluation.samples),
        metrics=metrics,
    )


def perplexity(loss: float) -> float:
    """The exponential of a loss in nats; infinite where it is too large for a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
