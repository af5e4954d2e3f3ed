"""Each update has rows of like length, the same ones however many processes read them and however few at a time."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kfp_finetune.components.torchtune_train.sampler import LengthSampler, order_rows


@dataclass
class Rows:
    lengths: list[int] = field(default_factory=list)
    rows_a_step: int = 4
    seed: int = 7


def usual_lengths(count: int) -> list[int]:
    return np.random.default_rng(0).lognormal(4, 1, count).astype(int).tolist()


def padding(lengths: list[int], order: np.ndarray) -> float:
    batches = np.asarray(lengths)[order]
    return 1 - batches.sum() / (batches.max(axis=1) * batches.shape[1]).sum()


@given(st.lists(st.integers(1, 500), max_size=300), st.integers(1, 9))
def test_every_row_is_read_once_but_those_that_fill_no_update(lengths: list[int], rows_a_step: int):
    order = order_rows(lengths, rows_a_step, np.random.default_rng(1))
    assert order.shape == (len(lengths) // rows_a_step, rows_a_step)
    assert len(set(order.ravel().tolist())) == order.size
    read = np.asarray(lengths)[order]
    assert (np.diff(read, axis=1) <= 0).all(), "an update's longest row is not its first"
    assert not order.size or read[0, 0] == read.max(), "the longest row is not in the first update"


def test_little_of_a_batch_is_padding_and_rows_meet_by_chance():
    lengths = usual_lengths(4000)
    first, second = (order_rows(lengths, 8, np.random.default_rng(seed)) for seed in (1, 2))
    by_chance = np.random.default_rng(1).permutation(4000).reshape(-1, 8)
    assert padding(lengths, first) < 0.15 < 0.5 < padding(lengths, by_chance)
    partners = [{frozenset(update.tolist()) for update in order} for order in (first, second)]
    assert not partners[0] & partners[1]
    means = np.asarray(lengths)[first].mean(axis=1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2, "lengths follow an order over the epoch"


def test_processes_share_the_updates_that_one_alone_would_make():
    lengths = usual_lengths(100)
    alone = LengthSampler(Rows(lengths, rows_a_step=8))
    shared = [LengthSampler(Rows(lengths, rows_a_step=4), 2, rank) for rank in (0, 1)]
    for sampler in (alone, *shared):
        sampler.set_epoch(3)
    whole = np.array(list(alone)).reshape(-1, 8)
    parts = [np.array(list(sampler)).reshape(-1, 4) for sampler in shared]
    assert len(alone) == whole.size and [len(sampler) for sampler in shared] == [part.size for part in parts]
    assert [set(update) for update in whole] == [set(update) for update in np.hstack(parts)]
    longest = np.asarray(lengths)[np.stack(parts)]
    assert (longest[0, :, 1:] <= longest[1, :, :-1]).all(), "processes wait for each other's longer rows"


def test_epochs_and_seeds_have_orders_of_their_own_that_come_again():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = LengthSampler(Rows(usual_lengths(200), seed=seed))
        sampler.set_epoch(epoch)
        return list(sampler)

    orders = {(seed, epoch): order(seed, epoch) for seed in (1, 2) for epoch in (0, 1)}
    assert len({tuple(rows) for rows in orders.values()}) == 4
    assert all(order(*drawn) == rows for drawn, rows in orders.items())


def test_an_epoch_goes_on_after_the_updates_that_were_made():
    sampler = LengthSampler(Rows(usual_lengths(50)))
    whole = list(sampler)
    sampler.start = 5
    assert len(sampler) == len(whole) - 20 and list(sampler) == whole[20:]
    assert list(sampler) == whole, "the next epoch is whole again"


def test_rows_in_the_datasets_own_order_where_none_is_to_be_drawn():
    assert list(LengthSampler(Rows(usual_lengths(11)), shuffle=False)) == list(range(8))
