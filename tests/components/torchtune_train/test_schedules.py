"""Each schedule rises to the peak and falls from it, and makes no step with a rate of 0."""

import pytest
import torch

from kfp_finetune.components.torchtune_train.schedules import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)


def rates(schedule, warmup: int, steps: int, **arguments: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = schedule(optimizer, num_warmup_steps=warmup, num_training_steps=steps, **arguments)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (get_linear_schedule_with_warmup, [1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25]),
        (get_constant_schedule_with_warmup, [1 / 3, 2 / 3, 1, 1, 1, 1]),
        (get_cosine_schedule_with_warmup, [1 / 3, 2 / 3, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_rate_rises_to_its_peak_and_falls(schedule, expected: list[float]):
    assert rates(schedule, 2, 6) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [get_linear_schedule_with_warmup, get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup],
)
@pytest.mark.parametrize(("warmup", "steps"), [(0, 1), (1, 1), (3, 3), (0, 5), (5, 5)])
def test_no_step_is_made_in_vain(schedule, warmup: int, steps: int):
    assert all(0 < rate <= 1 for rate in rates(schedule, warmup, steps))


def test_fewer_waves_of_the_cosine_fall_less():
    assert rates(get_cosine_schedule_with_warmup, 0, 10, num_cycles=0.25)[-1] > 0.05
