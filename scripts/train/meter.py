"""Measure what training costs at each step: tokens, seconds, memory, model FLOPs and energy.

`scripts/common/flops.py` has the formula for FLOPs. MFU is FLOPs per second divided by the device's peak in dense
bfloat16.
"""

import resource
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from scripts.common.files import written_whole
from scripts.common.flops import Cost
from scripts.common.gpus import find_gpu
from scripts.common.records import CostFacts
from scripts.train.processes import add_up, largest


class Meter(TrainerCallback):
    """Counts the tokens and FLOPs of all forward passes, and adds the cost to each line of the trainer's log.

    Args:
        trainer: the trainer, before training.
    """

    def __init__(self, trainer: Trainer) -> None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.cost, self.is_known = read_cost(base), count_experts(base.config) == 0
        self.device = trainer.args.device
        self.peak = find_peak(self.device)
        self.tokens = torch.zeros((), dtype=torch.float64, device=self.device)
        self.flops = torch.zeros((), dtype=torch.float64, device=self.device)
        self.since = time.monotonic()
        self.joules = read_energy(self.device)
        # All forward passes go through the base model: training, reference and sampling.
        base.register_forward_pre_hook(self._count, with_kwargs=True)
        reference = getattr(trainer, "ref_model", None)
        if reference is not None:
            trainer.accelerator.unwrap_model(reference).register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            return
        tokens, attended = count_attended(ids, kwargs)
        is_training = torch.is_grad_enabled() and module.training
        if is_training:
            self.tokens += tokens
        self.flops += self.cost.of(tokens, attended, is_training)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.since = time.monotonic()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not logs or "loss" not in logs:
            return
        now = time.monotonic()
        seconds = largest(now - self.since, self.device)
        tokens, flops = add_up(float(self.tokens), self.device), add_up(float(self.flops), self.device)
        measured = {"seconds": seconds, "tokens": tokens, "memory_gb": largest(peak_memory(self.device), self.device)}
        if self.is_known:
            measured["flops"] = flops
            if self.peak:
                measured["mfu"] = flops / seconds / (self.peak * args.world_size)
        joules = read_energy(self.device)
        used = add_up(joules - self.joules if joules is not None and self.joules is not None else 0.0, self.device)
        if used:
            measured["joules"] = used
        self.joules = joules
        # Checkpoints contain the log, so a resumed attempt has the lines of earlier ones.
        state.log_history[-1] |= measured
        logs |= measured
        self.since = now
        self.tokens.zero_()
        self.flops.zero_()


def read_cost(model: Any) -> Cost:
    """The cost of a token in this model, including its adapters."""
    config = model.config.get_text_config()
    adapters = sum(count(p) for name, p in model.named_parameters() if "lora_" in name)
    # An untied embedding is only looked up; a tied one is multiplied as the LM head.
    embedding = 0 if config.tie_word_embeddings else count(model.get_input_embeddings().weight)
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Cost(
        multiplying=count_parameters(model) - adapters - embedding,
        adapters=adapters,
        attention=2 * heads * width * config.num_hidden_layers,
    )


def count_experts(config: Any) -> int:
    """Number of experts; 0 for dense models. Each token uses only some experts, so FLOPs are unknown."""
    text = config.get_text_config()
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return next((number for name in names if (number := getattr(text, name, None))), 0)


def count(parameter: torch.Tensor) -> int:
    """Number of weights in a parameter. ZeRO-3 keeps only a part of them here, and a byte has two 4-bit weights."""
    return int(getattr(parameter, "ds_numel", 0) or parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1))


def count_parameters(model: torch.nn.Module, trained: bool = False) -> int:
    """Number of weights of a model, or only of the trained ones."""
    return sum(count(p) for p in model.parameters() if p.requires_grad or not trained)


def count_attended(ids: torch.Tensor, kwargs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of a batch without padding, and twice the sum over them of the tokens that each attends to."""
    boundaries, mask = kwargs.get("cu_seq_lens_q"), kwargs.get("attention_mask")
    if boundaries is not None:
        lengths = boundaries.diff().double()
    elif mask is not None and mask.dim() == 2:
        lengths = mask.sum(dim=1).double()
        if ids.shape[1] < mask.shape[1]:  # new tokens after a cache
            # New tokens attend to all cached ones; within a sequence, they attend to half of it on average.
            return torch.full((), float(ids.numel()), device=ids.device), 2 * lengths.sum() * ids.shape[1]
    else:
        lengths = torch.full((ids.shape[0],), float(ids.shape[1]), dtype=torch.float64)
    return lengths.sum().to(ids.device), (lengths**2).sum().to(ids.device)


def find_peak(device: torch.device) -> float | None:
    """Peak of the device in dense bfloat16 FLOP/s; None if unknown."""
    if device.type != "cuda":
        return None
    gpu = find_gpu(torch.cuda.get_device_name(device))
    return gpu.flops if gpu else None


def peak_memory(device: torch.device) -> float:
    """Peak memory so far in GB: of torch on a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def read_energy(device: torch.device) -> float | None:
    """Joules that the GPU has used since its driver was loaded; None if NVML does not report them."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except pynvml.NVMLError:
        return None


def summarise_steps(log: list[dict[str, Any]], epochs: float | None) -> CostFacts:
    """Totals of the log over all attempts. The seconds of a step include evaluations and saves before it."""
    lines = [line for line in log if "seconds" in line]
    seconds, tokens = (sum(line[key] for line in lines) for key in ("seconds", "tokens"))
    measured = [line for line in lines if "mfu" in line]
    return {
        "train_seconds": round(seconds, 1),
        "seconds_per_epoch": round(seconds / epochs, 1) if epochs else None,
        "tokens": int(tokens),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "flops": sum(line["flops"] for line in lines if "flops" in line) or None,
        "mfu": sum(line["mfu"] * line["seconds"] for line in measured) / seconds if measured else None,
        "energy_kwh": sum(line["joules"] for line in lines if "joules" in line) / 3.6e6 or None,
        "peak_train_memory_gb": round(max((line["memory_gb"] for line in lines), default=0.0), 2),
    }


def write_steps(path: Path, log: list[dict[str, Any]]) -> None:
    """Write the trainer's log as a table, with one line for each logged step or evaluation.

    Missing values and NaN, such as the mean of no rewards, become null.
    """
    names = list(dict.fromkeys(name for line in log for name in line))
    columns = {name: pa.array([line.get(name) for line in log], from_pandas=True) for name in names}
    with written_whole(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
