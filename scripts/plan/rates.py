"""What hours cost: GPU-hours, energy, money."""

from typing import Any

from scripts.common.config import Config
from scripts.common.gpus import find_gpu

RATES = ("gpu_hours", "energy_kwh", "money")
"""What is told of each job, and added up."""


def cost_of(config: Config, hours: float | None, gpus: int) -> dict[str, Any]:
    """GPU-hours, energy in kWh and money of jobs that take so long on so many GPUs; nothing of it without GPUs."""
    if hours is None or not gpus:
        return dict.fromkeys(RATES)
    rates = config.plan
    known = find_gpu(rates.gpu) if rates.gpu else None
    watts = rates.watts_per_gpu or (known.watts if known else None)
    gpu_hours = hours * gpus
    energy = gpu_hours * watts * rates.pue / 1000 if watts else None
    prices = [
        *([gpu_hours * rates.per_gpu_hour] if rates.per_gpu_hour is not None else []),
        *([energy * rates.per_kwh] if rates.per_kwh is not None and energy is not None else []),
    ]
    return {"gpu_hours": gpu_hours, "energy_kwh": energy, "money": sum(prices) if prices else None}


def add_up(values: list[float | None]) -> float | None:
    """The sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
