"""What the processes of one stage must agree on."""

import torch


def largest(value: float, device: torch.device) -> float:
    """The largest of the processes' values."""
    if not torch.distributed.is_initialized():
        return value
    shared = torch.tensor(float(value), dtype=torch.float64, device=device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return float(shared)
