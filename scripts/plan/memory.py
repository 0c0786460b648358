"""Memory that a stage needs on one GPU, or in one process on a CPU: what is held, by what it is held for.

Bytes of a number are a = 2 in bfloat16 and a = 4 in float32; N are the model's parameters, T those that are trained, P
the processes. Each function says its formula and where it comes from. What was measured on CPUs is in docs/plan.md.
"""

from dataclasses import dataclass

from scripts.common.config import Stage
from scripts.plan.shape import Shape
from scripts.plan.steps import setting

FOUR_BITS = 0.5 + 0.127 / 8
"""Bytes of a weight in nf4, and of the scales of its block of 64, quantised again (QLoRA, Dettmers et al. 2023)."""

BUCKET = 500_000_000
"""Gradients in one of DeepSpeed's buckets (`reduce_bucket_size`, default of 0.19.8); with overlap there are two."""

LIVE = 1_000_000_000
"""Weights that ZeRO-3 has gathered at once (`stage3_max_live_parameters`, default of DeepSpeed 0.19.8)."""

TILE_TOKENS = 4_096
TILE_WORDS = {"cpu": 2_048, "gpu": 32_768}
"""Tokens and words of the tiles in which TRL 1.16 multiplies by the LM head (`trl/kernels/chunked_logprob.py`); on CPUs
their width is ours (`scripts/train/lm_head.py`)."""

FRAMEWORK = {"cpu": 0.62e9, "gpu": 2.0e9}
"""Bytes that libraries take whatever is trained: on CPUs measured (Python, torch, transformers, TRL), on GPUs assumed
(context, kernels, communication, gaps between blocks)."""

KERNELS = 19e6
"""Bytes that a CPU process keeps for each size of batch that it meets: oneDNN compiles some 25 products for a size.
Measured on tiny models: 1.09 GB after batches of 24 sizes, 0.64 GB after batches of two."""

KEPT_SIZES = 40
"""Sizes whose products oneDNN keeps: its cache holds 1,024 of them (`ONEDNN_PRIMITIVE_CACHE_CAPACITY`)."""

HEAP = 1.6
"""Bytes that a process on a CPU holds for one that is kept for the backward pass: the C library's heap does not give
back what lay between. Measured on full and LoRA training of SmolLM2-135M; torch's allocator on GPUs reuses it."""

OPTIMISER_STATES = {"sgd": 0, "adafactor": 0, "adagrad": 1, "rmsprop": 1, "lion_32bit": 1}
"""Numbers that an optimiser keeps for each weight; all others are taken for Adam's two."""


@dataclass(frozen=True)
class Batch:
    """What goes through the model at once in one process.

    Args:
        tokens: with padding.
        length: of the longest sequence, which the mask of padded ones is as wide as.
        padded: sequences of unequal length lie side by side, so that attention needs a mask.
        sizes: different sizes that its batches are expected to have.
    """

    tokens: int
    length: int
    padded: bool
    sizes: float


@dataclass(frozen=True)
class Setup:
    """What decides on the memory of a stage beside its model and its batch.

    Args:
        on_gpu: else on CPUs, where the process' whole memory counts.
        dtype: `model.dtype`.
        processes: that train together.
        adapters: parameters of its adapters; 0 when all weights are trained.
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
    """Bytes by what they are held for at the peak, which is the end of a forward pass; they add up.

    Without accumulation, gradients come only while activations go, so that only the larger of both counts.
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
        "framework": FRAMEWORK["gpu"] if setup.on_gpu else FRAMEWORK["cpu"] + KERNELS * min(batch.sizes, KEPT_SIZES),
    }
    # The check of the saved model counts only where it takes more than what a step holds and it does not. On CPUs the
    # heap keeps the room of gradients and activations.
    freed = head + (parts["gradients"] + activations if setup.on_gpu else 0)
    return parts | {"saving": max(0.0, _saving(shape, stage, setup) - freed)}


def _is_spread(stage: Stage) -> bool:
    """The strategy spreads the weights themselves over the processes."""
    return stage.strategy in ("zero3", "fsdp2")


def _holds_copies(stage: Stage) -> bool:
    """DeepSpeed holds float32 copies of what is trained, so the model itself is in the run's precision."""
    return stage.strategy in ("zero2", "zero3")


def _trained(shape: Shape, setup: Setup) -> int:
    return setup.adapters or shape.parameters


def _weights(shape: Shape, stage: Stage, setup: Setup) -> float:
    """What `scripts/train/model.py` loads, and what the precision and the strategy add.

    Full: 4 N, with DeepSpeed a N; LoRA: a N and the adapters in float32 (a with DeepSpeed); QLoRA: linear layers in 4
    bits, the rest a, adapters in bfloat16 (TRL). ZeRO-3 and FSDP2 leave 1 / P of it, and gather what they compute with.
    Where float32 weights compute in bfloat16, autocast keeps bfloat16 copies through a step: 2 N.
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
        # Of the layers two are gathered at once: the one that computes, and the next.
        return held / setup.processes + a * (shape.embedding + 2 * shape.linear_parameters / shape.layers)
    return held + (2 * n if _casts(stage, setup) and stage.tuning == "full" else 0)


def _casts(stage: Stage, setup: Setup) -> bool:
    """Trained weights are float32 and products bfloat16, by autocast; not so with DeepSpeed."""
    return bool(stage.args.get("bf16", setup.dtype == "bfloat16")) and not _holds_copies(stage)


def _gradients(shape: Shape, stage: Stage, setup: Setup) -> tuple[float, float]:
    """Bytes of the gradients, and of the buckets that they are sent from.

    A gradient has the bytes of its weight: 4 T, of QLoRA's adapters 2 T, with DeepSpeed a T. ZeRO and FSDP2 keep 1 / P.
    DDP's buckets hold all of them once more, ZeRO's two have a fixed size.
    """
    trained = _trained(shape, setup)
    if _holds_copies(stage):
        return setup.number * trained / setup.processes, 2.0 * setup.number * BUCKET
    size = 2 if stage.tuning == "qlora" else 4
    if stage.strategy == "fsdp2":
        return size * trained / setup.processes, 0.0
    return size * trained, size * trained if setup.processes > 1 else 0.0


def _optimiser(shape: Shape, stage: Stage, setup: Setup) -> float:
    """Adam: two numbers for each trained weight, of its own precision; in 8 bits a byte each.

    DeepSpeed holds them in float32 beside a float32 copy of the weights (12 T), spread: 1 / P. FSDP2 spreads them too.
    """
    trained, kind = _trained(shape, setup), str(setting(stage, "optim"))
    states = OPTIMISER_STATES.get(kind, 2)
    if _holds_copies(stage):
        return (4 + 4 * states) * trained / setup.processes
    size = 1 if "8bit" in kind else 2 if stage.tuning == "qlora" else 4
    return states * size * trained / (setup.processes if stage.strategy == "fsdp2" else 1)


def _reference(shape: Shape, stage: Stage, setup: Setup) -> float:
    """A frozen copy of the parent, in the precision of the model that is trained; DeepSpeed's is in the run's.

    None with adapters, which are turned off instead; none where DPO's and KTO's `precompute_ref_log_probs` is set;
    GRPO has one where `beta` is not 0.
    """
    has_one = stage.method in ("dpo", "kto") or (stage.method == "grpo" and bool(stage.args.get("beta")))
    if not has_one or stage.tuning != "full" or stage.args.get("precompute_ref_log_probs"):
        return 0.0
    size = setup.number if _holds_copies(stage) else 4
    return size * shape.parameters / (setup.processes if _is_spread(stage) else 1)


def _activations(shape: Shape, stage: Stage, setup: Setup, batch: Batch) -> float:
    """What the backward pass needs of every layer; with checkpointing the input of each, and all of one layer."""
    layer = layer_bytes(shape, stage, setup, batch) * batch.tokens * (1 if setup.on_gpu else HEAP)
    if not stage.args.get("gradient_checkpointing"):
        return shape.layers * layer
    stream = setup.number if stage.tuning != "full" or _holds_copies(stage) else 4
    return shape.layers * stream * shape.hidden * batch.tokens + layer


def layer_bytes(shape: Shape, stage: Stage, setup: Setup, batch: Batch) -> float:
    """Bytes that autograd keeps of a token in one layer, for attention that keeps no weights (`sdpa`, FlashAttention).

    Counted with PyTorch's hooks for saved tensors on transformers 5.23's Llama and Qwen3, and counted again by
    tests/plan/test_memory.py. With h, q, k, f the widths of the stream, the queries, the keys and the feed-forward:

    - norms: what is normed in float32, 2 x 4 h; the normed in the stream's precision s where its weight is trained,
      2 s h; the output in s, 2 s h, unless it is cast for each linear layer that takes it;
    - queries, keys, values and the output of attention: a (2 q + 2 k); with a mask PyTorch's `sdpa` repeats keys and
      values for all heads, and keeps the mask: a (4 q) and a for each position;
    - norms of heads (Qwen3): (4 + s) (q + k) where their weights are trained, else 4 (q + k);
    - feed-forward: gate, up, the activated gate and the product: 4 a f;
    - under autocast with float32 weights, and for float32 adapters around bfloat16 ones, each linear layer keeps a cast
      of its own input instead of sharing it;
    - adapters: r numbers for each; with dropout a copy of the input of each, and its mask.
    """
    h, q, k, f = shape.hidden, shape.queries, shape.keys, shape.intermediate
    is_full, casts = stage.tuning == "full", _casts(stage, setup)
    a = 2 if casts else setup.number if not is_full or _holds_copies(stage) else 4
    stream = 4 if is_full and casts else a
    inputs = 5 * h + q + f  # of all linear layers together
    copies = casts and (is_full or stage.tuning == "lora")
    # What is cast is kept once for each layer that takes it; what lies in the stream's precision is kept anyway.
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
    """Logits and what becomes of them.

    ORPO keeps the logits of all tokens: themselves, and in float32 their log-softmax and its gradient. All others
    multiply in tiles: a buffer for one in the precision of the products, as wide as a tile can be, and on CPUs, which
    have no kernel for it, six times its contents in float32. The gradients of the last hidden states are float32, and
    so are those of the head where it is trained.
    """
    a = 2 if _casts(stage, setup) else setup.number
    gradients = 4 * batch.tokens * shape.hidden + (4 * shape.embedding if not setup.adapters else 0)
    if stage.method == "orpo":
        return batch.tokens * shape.vocabulary * (a + 8) + gradients
    width = TILE_WORDS["gpu"] * a if setup.on_gpu else min(shape.vocabulary, TILE_WORDS["cpu"]) * (a + 6 * 4)
    return min(batch.tokens, TILE_TOKENS) * width + gradients


def _saving(shape: Shape, stage: Stage, setup: Setup) -> float:
    """What saving and its check add (`scripts/train/model.py`): the model in float32, 4 N, twice but not at once.

    That is in main memory; of a GPU only QLoRA takes it, whose weights are dequantised where they were trained.
    """
    return 0.0 if setup.on_gpu and stage.tuning != "qlora" else 4.0 * shape.parameters
