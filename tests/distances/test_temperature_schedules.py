import math

import pytest

from pml_macl.distances import ConstantTemperature, CosineTemperature, LinearTemperature

SCHEDULES = [
    (LinearTemperature(0.3, 0.1, 4), [0.3, 0.25, 0.2, 0.15, 0.1, 0.1]),
    (CosineTemperature(0.3, 0.1, 4), [0.2 + 0.1 * math.cos(math.pi * min(t, 4) / 4) for t in range(6)]),
    (LinearTemperature(0.1, 0.3, 2), [0.1, 0.2, 0.3, 0.3, 0.3, 0.3]),
    (ConstantTemperature(0.2), [0.2] * 6),
]


@pytest.mark.parametrize(("schedule", "expected"), SCHEDULES)
def test_values_at_each_step(schedule, expected):
    values = []
    for _ in expected:
        values.append(schedule().item())
        schedule.advance()
    assert values == pytest.approx(expected, rel=1e-14)


def test_position_survives_a_round_trip_and_half():
    schedule = LinearTemperature(0.3, 0.1, 4).half()
    schedule.advance()
    restored = LinearTemperature(0.3, 0.1, 4)
    restored.load_state_dict(schedule.state_dict())
    assert restored().item() == pytest.approx(0.25, rel=1e-14)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LinearTemperature(0, 0.1, 4), ValueError, "start must be above 0"),
        (lambda: CosineTemperature(0.1, -1, 4), ValueError, "end must be above 0"),
        (lambda: CosineTemperature(0.1, 0.1, 0), ValueError, "num_steps must be at least 1, got 0"),
        (lambda: LinearTemperature(0.1, 0.1, 2.5), TypeError, "num_steps must be an integer, got 2.5"),
        (lambda: ConstantTemperature(math.inf), ValueError, "value must be"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
