"""Logits in parts, without a copy of the output layer's weights for each row."""

import pytest
import tiny
import torch
from shapes import architecture_of, build

from kfp_finetune.components.torchtune_train.output_parts import make_parts_contiguous
from kfp_finetune.components.torchtune_train.settings import TrainSettings


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_no_row_is_multiplied_by_itself_and_the_logits_are_the_same(family: str):
    model = build(TrainSettings(method="lora", dtype="fp32", max_seq_len=64), architecture_of(family))
    model.set_num_output_chunks(4)
    hidden = torch.randn(3, 16, 64)
    before = model.chunked_output(hidden)
    make_parts_contiguous(model)
    with torch.profiler.profile() as profile:
        after = model.chunked_output(hidden)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(before, after, strict=True))
    assert "aten::bmm" not in [event.key for event in profile.key_averages()]
