"""Estimate the memory of a stage on one GPU, or in one process on a CPU, by purpose.

a is the number of bytes of a number in the run's precision: 2 in bfloat16, 4 in float32. N is the number of parameters,
T the number of trained ones, P the number of processes. Each function documents its formula and the source.
docs/plan.md has the measurements on CPUs.
"""

from dataclasses import dataclass

from scripts.common.config import Stage
from scripts.plan.shape import Shape
from scripts.plan.steps import setting

FOUR_BITS = 0.5 + 0.127 / 8
"""Bytes of a weight in NF4, including the double-quantised scales of its block of 64 (QLoRA, Dettmers et al. 2023)."""

BUCKET = 500_000_000
"""Gradients in one of DeepSpeed's buckets (`reduce_bucket_size`, default of 0.19.8); with overlap there are two."""

LIVE = 1_000_000_000
"""Weights that ZeRO-3 gathers at once (`stage3_max_live_parameters`, default of DeepSpeed 0.19.8)."""

TILE_TOKENS = 4_096
TILE_WORDS = {"cpu": 2_048, "gpu": 32_768}
"""Tokens and vocabulary entries of the tiles in which TRL 1.16 computes the LM head (`trl/kernels/chunked_logprob.py`).
On CPUs, `scripts/train/lm_head.py` sets the width."""

FRAMEWORK = {"cpu": 0.62e9, "gpu": 2.0e9}
"""Bytes that libraries use in every stage: measured on CPUs (Python, torch, transformers, TRL), assumed on GPUs
(context, kernels, communication, fragmentation)."""

KERNELS = 19e6
"""Most bytes that a CPU process keeps for each batch size: oneDNN compiles about 25 matrix products for a size.

Measured on tiny models: 1.09 GB after batches of 24 sizes, 0.64 GB after batches of two. Only processors with bfloat16
units do this. Others use prebuilt kernels for float32 matrices and keep nothing (0.60 GB after 24 sizes). A plan does
not know the processor of its jobs."""

KEPT_SIZES = 40
"""Batch sizes whose products fit oneDNN's cache of 1,024 entries (`ONEDNN_PRIMITIVE_CACHE_CAPACITY`)."""

HEAP = 1.6
"""Bytes that a CPU process holds for each byte kept for the backward pass, since the C library's heap does not return
gaps. Measured on full and LoRA training of SmolLM2-135M. On GPUs, torch's allocator reuses gaps."""

OPTIMISER_STATES = {"sgd": 0, "adafactor": 0, "adagrad": 1, "rmsprop": 1, "lion_32bit": 1}
"""Numbers that an optimiser keeps for each weight. All others are assumed to keep two, as Adam does."""


@dataclass(frozen=True)
class Batch:
    """The largest batch of one process.

    Args:
        tokens: number of tokens, including padding.
        length: tokens of the longest sequence, and width of the attention mask.
        padded: sequences of different lengths are padded, so attention needs a mask.
        sizes: expected number of distinct batch sizes during training.
    """

    tokens: int
    length: int
    padded: bool
    sizes: float


@dataclass(frozen=True)
class Setup:
    """What determines the memory of a stage, besides its model and its batch.

    Args:
        on_gpu: whether it trains on GPUs. On CPUs, all memory of the process counts.
        dtype: `model.dtype`.
        processes: number of training processes.
        adapters: parameters of the adapters; 0 if all weights are trained.
    """

    on_gpu: bool
    dtype: str
    processes: int
    adapters: int

    @property
    def number(self) -> int:
        """Bytes of a number in the run's precision."""
        return 2 if self.dtype == "bfloat16" else 4


def estimate_memory(shape: Shape, stage: Stage, setup: Setup, batch: Batch) -> dict[str, float]:
    """Bytes by purpose at the peak, which is the end of a forward pass. Their sum is the total.

    Without gradient accumulation, gradients replace activations during the backward pass, so only the larger counts.
    """
    activations, head = _activations(shape, stage, setup, batch), _head(shape, stage, setup, batch)
    gradients, buckets = _gradients(shape, stage, setup)
    if setting(stage, "gradient_accumulation_steps") == 1:
        gradients = max(0.0, gradients - activations)
    parts = {
        "weights": _weights(shape, stage, setup),
        "gradients": gradients + buckets,
        "optimiser": _optimiser(shape, stage, setup),
        "reference": _reference(shape, stage, setup),
        "activations": activations,
        "head": head,
        "framework": FRAMEWORK["gpu"] if setup.on_gpu else FRAMEWORK["cpu"],
        "kernels": 0.0 if setup.on_gpu else KERNELS * min(batch.sizes, KEPT_SIZES),
    }
    # Checking the saved model adds only what exceeds the memory of a step that is free by then. On CPUs the heap keeps
    # the memory of gradients and activations.
    freed = head + (parts["gradients"] + activations if setup.on_gpu else 0)
    return parts | {"saving": max(0.0, _saving(shape, stage, setup) - freed)}


def _is_spread(stage: Stage) -> bool:
    """Whether the strategy shards the weights themselves."""
    return stage.strategy in ("zero3", "fsdp2")


def _holds_copies(stage: Stage) -> bool:
    """Whether DeepSpeed keeps float32 copies of trained weights, so that the model itself is in the run's precision."""
    return stage.strategy in ("zero2", "zero3")


def _trained(shape: Shape, setup: Setup) -> int:
    return setup.adapters or shape.parameters


def _weights(shape: Shape, stage: Stage, setup: Setup) -> float:
    """Weights as `scripts/train/model.py` loads them, and what precision and strategy add.

    Full: 4 N, or a N with DeepSpeed. LoRA: a N and adapters in float32 (a with DeepSpeed). QLoRA: linear layers in 4
    bits, all others a, adapters in bfloat16 (TRL). ZeRO-3 and FSDP2 keep 1 / P of them, and gather those in use. If
    float32 weights compute in bfloat16, autocast keeps bfloat16 copies during a step: 2 N.
    """
    a, n, rest = setup.number, shape.parameters, shape.parameters - shape.linear_parameters
    if stage.tuning == "qlora":
        return FOUR_BITS * shape.linear_parameters + a * rest + 2 * setup.adapters
    if stage.tuning == "lora":
        held = a * n + (a if _holds_copies(stage) else 4) * setup.adapters
    else:
        held = (a if _holds_copies(stage) else 4) * n
    if stage.strategy == "zero3":
        return held / setup.processes + a * min(n, LIVE)
    if stage.strategy == "fsdp2":
        # Two layers are gathered at once: the current one and the next.
        return held / setup.processes + a * (shape.embedding + 2 * shape.linear_parameters / shape.layers)
    return held + (2 * n if _casts(stage, setup) and stage.tuning == "full" else 0)


def _casts(stage: Stage, setup: Setup) -> bool:
    """Whether autocast computes products of float32 weights in bfloat16; not with DeepSpeed."""
    return bool(stage.args.get("bf16", setup.dtype == "bfloat16")) and not _holds_copies(stage)


def _gradients(shape: Shape, stage: Stage, setup: Setup) -> tuple[float, float]:
    """Bytes of the gradients, and of the buckets for communication.

    A gradient has the size of its weight: 4 T; 2 T for QLoRA's adapters; a T with DeepSpeed. ZeRO and FSDP2 keep 1 / P.
    DDP's buckets contain all gradients again; ZeRO's two buckets have a fixed size.
    """
    trained = _trained(shape, setup)
    if _holds_copies(stage):
        return setup.number * trained / setup.processes, 2.0 * setup.number * BUCKET
    size = 2 if stage.tuning == "qlora" else 4
    if stage.strategy == "fsdp2":
        return size * trained / setup.processes, 0.0
    return size * trained, size * trained if setup.processes > 1 else 0.0


def _optimiser(shape: Shape, stage: Stage, setup: Setup) -> float:
    """Optimiser states. Adam: two numbers for each trained weight, in its precision, or one byte each in 8 bits.

    DeepSpeed keeps them in float32, with a float32 copy of the weights: 12 T, sharded to 1 / P. FSDP2 shards them too.
    """
    trained, kind = _trained(shape, setup), str(setting(stage, "optim"))
    states = OPTIMISER_STATES.get(kind, 2)
    if _holds_copies(stage):
        return (4 + 4 * states) * trained / setup.processes
    size = 1 if "8bit" in kind else 2 if stage.tuning == "qlora" else 4
    return states * size * trained / (setup.processes if stage.strategy == "fsdp2" else 1)


def _reference(shape: Shape, stage: Stage, setup: Setup) -> float:
    """The reference model: a frozen copy of the parent, in the trained model's precision (with DeepSpeed, the run's).

    There is none with adapters, which are disabled instead, none if DPO or KTO set `precompute_ref_log_probs`, and one
    for GRPO only if `beta` is not 0.
    """
    has_one = stage.method in ("dpo", "kto") or (stage.method == "grpo" and bool(stage.args.get("beta")))
    if not has_one or stage.tuning != "full" or stage.args.get("precompute_ref_log_probs"):
        return 0.0
    size = setup.number if _holds_copies(stage) else 4
    return size * shape.parameters / (setup.processes if _is_spread(stage) else 1)


def _activations(shape: Shape, stage: Stage, setup: Setup, batch: Batch) -> float:
    """What the backward pass needs from all layers. With checkpointing: the input of each layer, and all of one."""
    layer = layer_bytes(shape, stage, setup, batch) * batch.tokens * (1 if setup.on_gpu else HEAP)
    if not stage.args.get("gradient_checkpointing"):
        return shape.layers * layer
    stream = setup.number if stage.tuning != "full" or _holds_copies(stage) else 4
    return shape.layers * stream * shape.hidden * batch.tokens + layer


def layer_bytes(shape: Shape, stage: Stage, setup: Setup, batch: Batch) -> float:
    """Bytes that autograd keeps for a token in one layer, if attention stores no weights (`sdpa`, FlashAttention).

    Counted with PyTorch's hooks for saved tensors on Llama and Qwen3 of transformers 5.23, and checked by
    tests/plan/test_memory.py. With h, q, k, f the widths of the residual stream, queries, keys and feed-forward layers:

    - norms: the input in float32, 2 x 4 h; the normalised input in the stream's precision s if the norm is trained,
      2 s h; the output in s, 2 s h, unless it is cast for each linear layer that uses it;
    - queries, keys, values and the output of attention: a (2 q + 2 k). With a mask, PyTorch's `sdpa` repeats keys and
      values for all heads, and keeps the mask: a (4 q), and a for each position;
    - head norms (Qwen3): (4 + s) (q + k) if they are trained, else 4 (q + k);
    - feed-forward: gate, up, activated gate and product: 4 a f;
    - under autocast with float32 weights, and for float32 adapters around bfloat16 weights, each linear layer keeps its
      own cast input instead of sharing it;
    - adapters: r numbers for each; with dropout, a copy of each input and its mask.
    """
    h, q, k, f = shape.hidden, shape.queries, shape.keys, shape.intermediate
    is_full, casts = stage.tuning == "full", _casts(stage, setup)
    a = 2 if casts else setup.number if not is_full or _holds_copies(stage) else 4
    stream = 4 if is_full and casts else a
    inputs = 5 * h + q + f  # of all linear layers
    copies = casts and (is_full or stage.tuning == "lora")
    # A cast input is kept once for each layer that uses it. Inputs in the stream's precision are kept in any case.
    norms = 2 * (4 * h + (stream * h if is_full else 0)) + (0 if copies else 2 * a * h)
    cast = a * (5 * h + (0 if is_full else q)) if copies else 0
    attention = a * (4 * q + batch.length if batch.padded else 2 * q + 2 * k)
    head_norms = (4 + (a if is_full else 0)) * (q + k) if shape.norms_heads else 0
    total = norms + cast + attention + head_norms + 4 * a * f
    if not is_full:
        total += len(shape.linears) * stage.lora.r * a
        if stage.lora.dropout:
            total += inputs * (a + (1 if setup.on_gpu else a))
    return total


def _head(shape: Shape, stage: Stage, setup: Setup, batch: Batch) -> float:
    """The LM head: logits and their gradients.

    ORPO keeps the logits of all tokens, and in float32 their log-softmax and its gradient. All other methods compute
    tiles: a buffer for one tile of the greatest width in the precision of products, and on CPUs, which have no kernel,
    six float32 copies of its contents. Gradients of the last hidden states are float32, and so are those of the head if
    it is trained.
    """
    a = 2 if _casts(stage, setup) else setup.number
    gradients = 4 * batch.tokens * shape.hidden + (4 * shape.embedding if not setup.adapters else 0)
    if stage.method == "orpo":
        return batch.tokens * shape.vocabulary * (a + 8) + gradients
    width = TILE_WORDS["gpu"] * a if setup.on_gpu else min(shape.vocabulary, TILE_WORDS["cpu"]) * (a + 6 * 4)
    return min(batch.tokens, TILE_TOKENS) * width + gradients


def _saving(shape: Shape, stage: Stage, setup: Setup) -> float:
    """Saving and checking the model (`scripts/train/model.py`): it is loaded twice in float32, but not at once: 4 N.

    This uses main memory. Only QLoRA uses memory of the GPU, since its weights are dequantised there.
    """
    return 0.0 if setup.on_gpu and stage.tuning != "qlora" else 4.0 * shape.parameters
