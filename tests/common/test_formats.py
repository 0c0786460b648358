"""Numbers as people read them in reports and cards."""

import pytest

from scripts.common import formats


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (formats.percent(0.4567), "45.7"),
        (formats.signed_points(0.045), "+4.5"),
        (formats.signed_points(-0.02), "−2.0"),
        (formats.signed_points(-0.0001), "0.0"),
        (formats.p_value(0.0004), r"\<0.001"),
        (formats.p_value(0.0123), "0.012"),
        (formats.p_value(0.001), "0.001"),
        (formats.percent(1.0), "100.0"),
        (formats.signed_points(-0.0005), "−0.1"),
        (formats.loss(0.12345), "0.123"),
        (formats.loss(-0.5), "−0.500"),
        (formats.loss(None), "–"),
        (formats.count(1234567), "1,234,567"),
        (formats.count(None), "–"),
        (formats.magnitude(134_515_008), "134.5\u00a0M"),
        (formats.magnitude(4_000_000_000), "4.0\u00a0B"),
        (formats.magnitude(1_000_000), "1.0\u00a0M"),
        (formats.magnitude(1_000), "1.0\u00a0K"),
        (formats.magnitude(999), "999"),
        (formats.magnitude(None), "–"),
        (formats.duration(48.2), "48\u00a0s"),
        (formats.duration(125), "2\u00a0min\u00a05\u00a0s"),
        (formats.duration(11_520), "3\u00a0h\u00a012\u00a0min"),
        (formats.duration(59.6), "1\u00a0min\u00a00\u00a0s"),
        (formats.duration(3_600), "1\u00a0h\u00a00\u00a0min"),
        (formats.duration(90_061), "25\u00a0h\u00a01\u00a0min"),
        (formats.duration(None), "–"),
        (formats.gigabytes(None), "–"),
        (formats.gigabytes(1_400_000_000), "1.4\u00a0GB"),
    ],
)
def test_numbers(given: str, shown: str) -> None:
    assert given == shown
