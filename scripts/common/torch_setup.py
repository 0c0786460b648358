"""What every process that computes with torch does first."""

import random

import numpy as np
import torch


def prepare_torch(seed: int, cpus: int, exact: bool = False) -> str:
    """Seed every generator, and pin the number of arithmetic threads: another number gives other last bits.

    Args:
        exact: compute products of float32 numbers in float32, as who scores the model elsewhere would. Otherwise, where
            the processor has bfloat16 or TF32 units, they may use them; sums, weights and results stay float32.

    Returns:
        The device to compute on, `cuda` or `cpu`.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_num_threads(cpus)
    torch.set_float32_matmul_precision("highest" if exact else "medium")
    return "cuda" if torch.cuda.is_available() else "cpu"
