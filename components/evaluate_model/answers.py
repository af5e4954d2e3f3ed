"""A model's own answers to a few prompts."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from kfp_finetune.components.evaluate_model.loss import Share

MAX_NEW_TOKENS = 96


def write_answers(
    model: PreTrainedModel, tokenizer: Any, prompts: Sequence[Sequence[int]], share: Share | None = None
) -> list[str]:
    """What a model writes after each prompt, always its likeliest token.

    Args:
        model: In evaluation mode.
        tokenizer: The model's.
        prompts: The tokens of each.
        share: This process's share. Default: all of it.

    Returns:
        The answers to all prompts, in their order.
    """
    share = share or Share()
    ends = sorted(_end_tokens(model, tokenizer))
    mine = [_answer(model, tokenizer, prompt, ends) for prompt in prompts[share.rank :: share.world_size]]
    if share.world_size == 1:
        return mine
    parts: list[Any] = [None] * share.world_size
    torch.distributed.all_gather_object(parts, mine)
    return [parts[index % share.world_size][index // share.world_size] for index in range(len(prompts))]


def _answer(model: PreTrainedModel, tokenizer: Any, prompt_ids: Sequence[int], ends: Sequence[int]) -> str:
    prompt = torch.tensor([prompt_ids], device=model.device)
    written = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        repetition_penalty=1.2,
        eos_token_id=list(ends),
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.decode(written[0, len(prompt_ids) :], skip_special_tokens=True).strip()


def _end_tokens(model: PreTrainedModel, tokenizer: Any) -> set[int]:
    """What ends an answer: the tokenizer's end token, and those of the model, such as Gemma's end of a turn."""
    known = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id} | set(known if isinstance(known, list) else [] if known is None else [known])
