"""Combine values over the processes of a stage."""

import torch


def largest(value: float, device: torch.device) -> float:
    """The maximum over all processes."""
    return _reduce(value, device, torch.distributed.ReduceOp.MAX)


def add_up(value: float, device: torch.device) -> float:
    """The sum over all processes."""
    return _reduce(value, device, torch.distributed.ReduceOp.SUM)


def _reduce(value: float, device: torch.device, how: torch.distributed.ReduceOp.RedOpType) -> float:
    if not torch.distributed.is_initialized():
        return value
    shared = torch.tensor(float(value), dtype=torch.float64, device=device)
    torch.distributed.all_reduce(shared, op=how)
    return float(shared)
