"""Peak performance, memory and power of GPUs, from NVIDIA's data sheets."""

from typing import NamedTuple


class Gpu(NamedTuple):
    """One model of GPU.

    Args:
        flops: dense bfloat16 operations per second.
        memory_gb: memory, in GB (10⁹ bytes).
        watts: maximum power.
    """

    flops: float
    memory_gb: float
    watts: float


GPUS = {
    "H100 PCIe": Gpu(756e12, 80, 350),
    "H100 NVL": Gpu(835e12, 94, 400),
    "H200 NVL": Gpu(835e12, 141, 600),
    "H100": Gpu(989.4e12, 80, 700),
    "H200": Gpu(989.4e12, 141, 700),
    "A100-SXM4-40GB": Gpu(312e12, 40, 400),
    "A100-PCIE-40GB": Gpu(312e12, 40, 250),
    "A100": Gpu(312e12, 80, 400),
}
"""GPUs by a part of their device name. The first match counts, so longer names come before shorter ones."""


def find_gpu(name: str) -> Gpu | None:
    """The GPU with this device name; None if it is not known."""
    return next((gpu for part, gpu in GPUS.items() if part.lower() in name.lower()), None)
