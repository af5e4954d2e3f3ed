"""Log-probabilities of answers, against torchtune's own of the same logits."""

import pytest
import torch
from torchtune.rlhf import get_batch_log_probs

from kfp_finetune.chat import IGNORED
from kfp_finetune.components.torchtune_train.log_probs import PARTS, answer_log_probs

ROWS, VOCABULARY = 3, 11


@pytest.mark.parametrize("tokens", [1, 5, PARTS, 3 * PARTS + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_and_gradients_are_torchtune_s(dtype: torch.dtype, tokens: int):
    draw = torch.Generator().manual_seed(tokens)
    logits = (4 * torch.randn(ROWS, tokens, VOCABULARY, generator=draw)).to(dtype).requires_grad_()
    labels = torch.randint(VOCABULARY, (ROWS, tokens), generator=draw)
    labels[torch.rand(ROWS, tokens, generator=draw) < 0.4] = IGNORED
    weights = torch.randn(ROWS, generator=draw)
    found = []
    for told in (
        answer_log_probs(logits.chunk(PARTS, dim=1), labels),
        get_batch_log_probs(logits.float(), labels),
    ):
        (gradient,) = torch.autograd.grad((told * weights).sum(), logits)
        found.append((told.detach(), gradient))
    (ours, our_gradient), (theirs, their_gradient) = found
    assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-5)
    assert our_gradient.dtype == dtype
    torch.testing.assert_close(our_gradient, their_gradient)
    assert tokens == 1 or gradient.abs().sum() > 0


def test_nothing_but_the_logits_waits_for_the_backward_pass():
    logits = torch.randn(ROWS, 16, VOCABULARY, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(VOCABULARY, (ROWS, 16))
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer_log_probs(logits.chunk(2, dim=1), labels).sum()
    wanted_and_whether_it_counts = ROWS * 16 * (8 + 1)
    assert sum(kept.values()) - logits.untyped_storage().nbytes() <= wanted_and_whether_it_counts + 8
