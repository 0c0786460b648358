"""The cost of hours: GPU-hours, energy and money."""

from scripts.common.config import Config
from scripts.common.gpus import find_gpu
from scripts.common.records import Costs


def cost_of(config: Config, hours: float | None, gpus: int) -> Costs:
    """GPU-hours, energy in kWh and money of jobs with these hours and GPUs; all None without GPUs."""
    if hours is None or not gpus:
        return {"gpu_hours": None, "energy_kwh": None, "money": None}
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
    """The sum of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
