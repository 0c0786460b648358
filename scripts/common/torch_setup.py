"""What every process that computes with torch does first."""

import random

import numpy as np
import torch


def prepare_torch(seed: int, cpus: int) -> str:
    """Seed every generator, and pin the number of arithmetic threads: another number gives other last bits.

    Returns:
        The device to compute on, `cuda` or `cpu`.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_num_threads(cpus)
    # Where the processor has bf16 or TF32 units, products may use them; sums, weights and results stay float32.
    torch.set_float32_matmul_precision("medium")
    return "cuda" if torch.cuda.is_available() else "cpu"
