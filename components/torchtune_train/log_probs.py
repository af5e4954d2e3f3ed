"""Log-probabilities of answers, for which logits wait for the backward pass and nothing else of their size.

torchtune's `rlhf.get_batch_log_probs` keeps the logarithms of the whole softmax too, makes a copy of the logits on the
way, and all of them in fp32. Here they are computed for a part of a row at a time, and again in the backward pass.
"""

from collections.abc import Sequence
from typing import Any

import torch

from kfp_finetune.chat import IGNORED

PARTS = 8
"""Parts of a row in which logits are computed, as torchtune has it for its chunked losses."""


class _OfTokens(torch.autograd.Function):
    """The logarithm of the softmax at one token for each row of logits: (rows, tokens, vocabulary), (rows, tokens)."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits, tokens)
        rows = zip(logits, tokens.unsqueeze(-1), strict=True)
        return torch.cat([row.float().log_softmax(-1).gather(-1, told).mT for row, told in rows])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, tokens = ctx.saved_tensors
        result = torch.empty_like(logits)
        for into, row, told, given in zip(result, logits, tokens.unsqueeze(-1), gradients[0], strict=True):
            given = given.unsqueeze(-1)
            into.copy_(row.float().softmax(-1).mul_(-given).scatter_add_(-1, told, given))
        return result, None


def answer_log_probs(logits: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """The logarithm of the probability of each row's answer.

    Args:
        logits: In parts, one after the other, each of shape (rows, tokens, vocabulary).
        labels: Of shape (rows, tokens of all parts); `chat.IGNORED` where a token is no part of the answer.

    Returns:
        Of shape (rows,).
    """
    # A token is foretold by the logits of the one before.
    wanted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    sums = [
        (_OfTokens.apply(part, told.clamp(min=0)) * (told != IGNORED)).sum(-1)
        for part, told in zip(logits, wanted.split([part.shape[1] for part in logits], dim=1), strict=True)
    ]
    return torch.stack(sums).sum(0)
