"""Packed rows are the same rows: the same loss, token for token, and none sees another."""

import itertools
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from given import start
from hypothesis import given as examples
from hypothesis import strategies as st
from omegaconf import DictConfig
from torchtune import config as torchtune_config
from torchtune.data import padded_collate_packed, padded_collate_sft

from kfp_finetune.chat import IGNORED
from kfp_finetune.components.torchtune_train.checkpoints import EpochCheckpointer
from kfp_finetune.components.torchtune_train.data import TokenDataset
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.components.torchtune_train.packing import pack_rows
from kfp_finetune.components.torchtune_train.tokenizers import ChatTokenizer


@examples(st.lists(st.integers(1, 50), max_size=40), st.integers(50, 120))
def test_every_row_is_packed_once_in_order_and_no_pack_is_too_long(lengths: list[int], max_seq_len: int):
    packs = pack_rows(lengths, max_seq_len)
    assert [index for pack in packs for index in pack] == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in pack) <= max_seq_len for pack in packs)
    assert all(
        sum(lengths[index] for index in pack) + lengths[after[0]] > max_seq_len
        for pack, after in itertools.pairwise(packs)
    )


def build(model: Path) -> torch.nn.Module:
    architecture = read_architecture(json.loads((model / "config.json").read_text()))
    built = torchtune_config.instantiate(
        DictConfig({"_component_": architecture.builder, **architecture.arguments, "max_seq_len": 128})
    )
    checkpointer = EpochCheckpointer(
        str(model), ["model.safetensors"], architecture.model_type, str(model.parent / "o")
    )
    built.load_state_dict(checkpointer.load_checkpoint()["model"])
    return built.eval()


@torch.inference_mode()
def total_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[float, int]:
    labels = batch.pop("labels")
    logits = model(**batch)
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return float(loss), int((labels[:, 1:] != IGNORED).sum())


@pytest.mark.parametrize("train_on_input", [False, True])
def test_the_loss_of_packed_rows_is_that_of_the_rows(train_on_input: bool, tmp_path: Path):
    found = start(tmp_path, rows=30)
    plan = found.plan(train_on_input=train_on_input).plan
    model_path, path = found.root / plan.model, str(found.root / plan.training / "tokens" / "train")
    tokenizer, model = ChatTokenizer(str(model_path)), build(model_path)
    alone, packed = TokenDataset(tokenizer, path), TokenDataset(tokenizer, path, packed=True, max_seq_len=128)
    assert len(packed) < len(alone) / 2
    collate = partial(padded_collate_sft, padding_idx=tokenizer.pad_id, ignore_idx=IGNORED)
    expected = [total_loss(model, collate([alone[index]])) for index in range(len(alone))]
    found_losses = [total_loss(model, padded_collate_packed([packed[index]])) for index in range(len(packed))]
    assert sum(count for _, count in found_losses) == sum(count for _, count in expected)
    assert sum(loss for loss, _ in found_losses) == pytest.approx(sum(loss for loss, _ in expected), rel=1e-5)
    assert packed.tokens_read == alone.tokens_read == plan.train["tokens"]


def test_a_packed_training_has_as_many_steps_as_planned(tmp_path: Path):
    found = start(tmp_path, rows=60)
    packed, alone = found.plan(packed=True, batch_size=1).plan, found.plan(batch_size=1).plan
    assert packed.key != alone.key
    path = str(found.root / packed.training / "tokens" / "train")
    tokenizer = ChatTokenizer(str(found.root / packed.model))
    assert packed.total_steps == len(TokenDataset(tokenizer, path, packed=True, max_seq_len=128))
    assert alone.total_steps == alone.train["rows"]
