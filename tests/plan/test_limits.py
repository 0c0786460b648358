"""Limits of jobs: the time of all attempts at a stage, and values that are upper bounds."""

import pytest

from scripts.plan.limits import is_within, stage_hours
from tests.plan.stages import make_stage


@pytest.mark.parametrize(
    ("time_limit", "attempts", "limit", "over_time"),
    [
        (24, None, 24, "fit"),
        (None, None, 8, "end"),
        (24, 3, 24, "fit"),
        (24, 2, 16, "end"),
        (4, 1, 4, "fit"),
        (None, 3, 24, "end"),
    ],
)
def test_a_stage_has_its_time_limit_or_that_of_its_jobs(
    time_limit: float | None, attempts: int | None, limit: float, over_time: str
) -> None:
    """Jobs of eight hours, each of which resumes the previous one."""
    assert stage_hours(make_stage(time_limit=time_limit), 8, attempts) == (limit, over_time)


def test_over_time_of_the_stage_is_returned() -> None:
    assert stage_hours(make_stage(time_limit=4, over_time="refuse"), 8, None) == (4, "refuse")


@pytest.mark.parametrize(
    ("value", "limit", "is_bound", "fits"),
    [
        (1, 2, False, True),
        (2, 2, False, True),
        (2, 2, True, True),
        (3, 2, False, False),
        (3, 2, True, None),
        (1, 2, True, True),
        (None, 2, False, None),
    ],
)
def test_unknown_values_are_not_judged(value: float | None, limit: float, is_bound: bool, fits: bool | None) -> None:
    assert is_within(value, limit, is_bound) is fits
