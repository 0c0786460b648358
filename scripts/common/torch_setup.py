"""Setup of every process that computes with torch."""

import random

import numpy as np
import torch


def prepare_torch(seed: int, cpus: int, exact: bool = False) -> str:
    """Seed all random generators and set the number of threads, which affects results in the last bits.

    Args:
        seed: the seed.
        cpus: number of compute threads.
        exact: compute products of float32 matrices in float32, as others who score the model would. If false, products
            may use bfloat16 or TF32 units; sums, weights and results stay float32.

    Returns:
        The device to compute on, `cuda` or `cpu`.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_num_threads(cpus)
    torch.set_float32_matmul_precision("highest" if exact else "medium")
    return "cuda" if torch.cuda.is_available() else "cpu"
