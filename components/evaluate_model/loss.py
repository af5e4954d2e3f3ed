"""Loss on held-out tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import torch
from transformers import PreTrainedModel

from kfp_finetune.chat import IGNORED
from kfp_finetune.progress import progress_printer

TOKENS_IN_BATCH = 4096
POSITIONS_AT_ONCE = 1024
"""Whose logits are held in 32 bits at a time: a row of them has an entry for each token that there is."""


@dataclass(frozen=True)
class Share:
    """What one of several processes does of a piece of work.

    Args:
        rank: The process's number.
        world_size: How many there are.
    """

    rank: int = 0
    world_size: int = 1


def held_out_loss(
    what: str, model: PreTrainedModel, rows: datasets.Dataset, share: Share | None = None
) -> tuple[float, int]:
    """Mean loss over all tokens that are not masked, whatever batch they fall in.

    Args:
        what: Name of the work, for its progress.
        model: In evaluation mode.
        rows: With `tokens` and `labels`.
        share: This process's share. Default: all of it.

    Returns:
        The loss in nats a token, and the number of tokens; of all processes together.
    """
    share = share or Share()
    batches = batch_by_length([len(tokens) for tokens in rows["tokens"]], TOKENS_IN_BATCH)
    mine = batches[share.rank :: share.world_size]
    report = progress_printer(what, len(mine), "batch")
    total, count = 0.0, 0
    for done, indices in enumerate(mine, start=1):
        lost, counted = _batch_loss(model, rows[indices])
        total, count = total + lost, count + counted
        report(done, loss=round(total / max(count, 1), 4))
    if share.world_size > 1:
        sums = torch.tensor([total, count], dtype=torch.float64, device=model.device)
        torch.distributed.all_reduce(sums)
        total, count = float(sums[0]), int(sums[1])
    return total / max(count, 1), count


def row_losses(what: str, model: PreTrainedModel, rows: datasets.Dataset, share: Share | None = None) -> list[float]:
    """The summed loss of each row's tokens that are not masked: its negative log-probability.

    Args:
        what: Name of the work, for its progress.
        model: In evaluation mode.
        rows: With `tokens` and `labels`.
        share: This process's share. Default: all of it.

    Returns:
        The losses of all rows, in nats, in the rows' order.
    """
    share = share or Share()
    batches = batch_by_length([len(tokens) for tokens in rows["tokens"]], TOKENS_IN_BATCH)
    mine = batches[share.rank :: share.world_size]
    report = progress_printer(what, len(mine), "batch")
    losses = torch.zeros(len(rows), dtype=torch.float64, device=model.device)
    for done, indices in enumerate(mine, start=1):
        lost, _ = _token_losses(model, rows[indices])
        losses[indices] = lost.double().sum(1).to(losses.device)
        report(done)
    if share.world_size > 1:
        torch.distributed.all_reduce(losses)
    return losses.tolist()


def _batch_loss(model: PreTrainedModel, batch: dict[str, list[list[int]]]) -> tuple[float, int]:
    """Sum of the losses of a batch's tokens, and their number."""
    losses, counted = _token_losses(model, batch)
    return float(losses.double().sum()), counted


@torch.inference_mode()
def _token_losses(model: PreTrainedModel, batch: dict[str, list[list[int]]]) -> tuple[torch.Tensor, int]:
    """The loss of each token but a row's first, zero where it is masked: [rows, tokens - 1]; and how many are not."""
    tokens, mask = _pad(batch["tokens"], 0, model.device)
    labels, _ = _pad(batch["labels"], IGNORED, model.device)
    logits = model(input_ids=tokens, attention_mask=mask).logits[:, :-1].flatten(0, 1)
    targets = labels[:, 1:].flatten().to(logits.device)
    pieces = zip(logits.split(POSITIONS_AT_ONCE), targets.split(POSITIONS_AT_ONCE), strict=True)
    losses = [
        torch.nn.functional.cross_entropy(piece.float(), target, ignore_index=IGNORED, reduction="none")
        for piece, target in pieces
    ]
    return torch.cat(losses).view(len(tokens), -1), int((targets != IGNORED).sum())


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
