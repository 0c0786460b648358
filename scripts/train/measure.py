"""What training costs: tokens, seconds, memory, model FLOPs and energy, step by step.

Model FLOPs are those that the method needs, whatever the implementation spends (recomputed activations do not count).
Of one token, with N parameters that multiply (all but the embedding of the input; the head counts), L layers of
attention width d, and s tokens in its sequence:

- a forward pass: 2 N + 2 s d L (the causal half of 4 s d L),
- the backward pass: the same again for what flows back, and the same again for the gradients of weights that are
  trained: with adapters, N is left out of that third part and the adapters' own parameters come in.

That is 6 N for full training and 4 N with adapters (Kaplan et al., "Scaling laws for neural language models", 2020).
Forward passes without gradient (references, sampling) count too. Utilisation is FLOPs by seconds, by the peak of the
device in dense bfloat16.
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
from scripts.train.processes import add_up, largest

PEAK_FLOPS = {
    **{"H100 PCIe": 756e12, "H100 NVL": 835e12, "H200 NVL": 835e12},
    **{"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12},
}
"""Dense bfloat16 operations a second of devices, by a part of their names: the first that fits counts."""


class Meter(TrainerCallback):
    """Counts what goes through the model, and adds it to each line of the trainer's log.

    Args:
        trainer: the trainer, built but not started.
    """

    def __init__(self, trainer: Trainer) -> None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.cost = Cost(base)
        self.device = trainer.args.device
        self.peak = find_peak(self.device)
        self.tokens = torch.zeros((), dtype=torch.float64, device=self.device)
        self.flops = torch.zeros((), dtype=torch.float64, device=self.device)
        self.since = time.monotonic()
        self.joules = read_energy(self.device)
        # Each forward pass goes through the base model: those of training, of a reference and of sampling.
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
        if self.peak and self.cost.is_known:
            measured["mfu"] = flops / seconds / (self.peak * args.world_size)
        joules = read_energy(self.device)
        used = add_up(joules - self.joules if joules is not None and self.joules is not None else 0.0, self.device)
        if used:
            measured["joules"] = used
        self.joules = joules
        # The log is kept in the checkpoints, so an attempt that goes on has the lines of those before.
        state.log_history[-1] |= measured
        logs |= measured
        self.since = now
        self.tokens.zero_()
        self.flops.zero_()


class Cost:
    """Model FLOPs of a model's passes; see the module for the formula."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        # Of a mixture of experts, only some multiply for each token.
        self.is_known = not (getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None))
        embedding = model.get_input_embeddings().weight
        tied = config.tie_word_embeddings
        self.adapters = sum(count(p) for name, p in model.named_parameters() if "lora_" in name)
        # A tied embedding multiplies as the head does.
        self.multiplying = count_parameters(model) - self.adapters - (0 if tied else count(embedding))
        self.trained = self.adapters or self.multiplying
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.attention = 2 * heads * width * config.num_hidden_layers

    def of(self, tokens: torch.Tensor, attended: torch.Tensor, is_training: bool) -> torch.Tensor:
        """FLOPs of a pass over so many tokens, which attend to `attended` ones in all."""
        forward = 2 * (self.multiplying + self.adapters) * tokens + self.attention * attended
        if not is_training:
            return forward
        return 2 * forward + 2 * self.trained * tokens + self.attention * attended


def count(parameter: torch.Tensor) -> int:
    """Weights of a parameter: ZeRO-3 leaves only a part of them here, and 4-bit ones are stored two in a byte."""
    return int(getattr(parameter, "ds_numel", 0) or parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1))


def count_parameters(model: torch.nn.Module, trained: bool = False) -> int:
    """Weights of a model, or only those that are trained."""
    return sum(count(p) for p in model.parameters() if p.requires_grad or not trained)


def count_attended(ids: torch.Tensor, kwargs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of a batch without padding, and twice the sum of the tokens that each of them attends to."""
    boundaries, mask = kwargs.get("cu_seq_lens_q"), kwargs.get("attention_mask")
    if boundaries is not None:
        lengths = boundaries.diff().double()
    elif mask is not None and mask.dim() == 2:
        lengths = mask.sum(dim=1).double()
        if ids.shape[1] < mask.shape[1]:  # more tokens behind a cache
            # None of them is hidden from it, as half of them are on average within a sequence.
            return torch.full((), float(ids.numel()), device=ids.device), 2 * lengths.sum() * ids.shape[1]
    else:
        lengths = torch.full((ids.shape[0],), float(ids.shape[1]), dtype=torch.float64)
    return lengths.sum().to(ids.device), (lengths**2).sum().to(ids.device)


def find_peak(device: torch.device) -> float | None:
    """Dense bfloat16 operations a second of the device; None where they are not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def peak_memory(device: torch.device) -> float:
    """The most memory so far, in GB: of torch on a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def read_energy(device: torch.device) -> float | None:
    """Joules that a GPU has used since its driver was loaded; None where NVML does not tell."""
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


def summarise_steps(log: list[dict[str, Any]], epochs: float | None) -> dict[str, Any]:
    """Totals of the lines of the log, over all attempts.

    Returns:
        `train_seconds`, `seconds_per_epoch`, `tokens`, `tokens_per_second`, `mfu` and `energy_kwh` (null where they are
        not known), `peak_train_memory_gb`. Evaluations and saves are in the seconds of the step after them.
    """
    lines = [line for line in log if "seconds" in line]
    seconds, tokens = (sum(line[key] for line in lines) for key in ("seconds", "tokens"))
    measured = [line for line in lines if "mfu" in line]
    return {
        "train_seconds": round(seconds, 1),
        "seconds_per_epoch": round(seconds / epochs, 1) if epochs else None,
        "tokens": int(tokens),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "mfu": sum(line["mfu"] * line["seconds"] for line in measured) / seconds if measured else None,
        "energy_kwh": sum(line["joules"] for line in lines if "joules" in line) / 3.6e6 or None,
        "peak_train_memory_gb": round(max((line["memory_gb"] for line in lines), default=0.0), 2),
    }


def write_steps(path: Path, log: list[dict[str, Any]]) -> None:
    """The trainer's log as a table: a line a logged step or evaluation, with null for what a line does not have.

    What is not a number, such as the mean of no reward, is null too.
    """
    names = list(dict.fromkeys(name for line in log for name in line))
    columns = {name: pa.array([line.get(name) for line in log], from_pandas=True) for name in names}
    with written_whole(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
