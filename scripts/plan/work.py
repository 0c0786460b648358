"""Estimate the work of a stage: tokens, model FLOPs, and the largest batch that must fit in memory."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

from scripts.common.config import ROW_TYPE_BY_METHOD, Stage
from scripts.common.flops import Cost
from scripts.plan.memory import KEPT_SIZES, Batch
from scripts.plan.rows import Rows
from scripts.plan.steps import NO_LENGTH, Schedule, count_packed, max_length, setting


@dataclass(frozen=True)
class Work:
    """The work of a stage, over all processes.

    Args:
        tokens: trained tokens with their prompts, without padding. For GRPO an upper bound: answers may be shorter.
        flops: model FLOPs, including reference model, sampling and validation.
        recomputed: FLOPs of activations that checkpointing recomputes, which `flops` does not include.
    """

    tokens: float
    flops: float
    recomputed: float


def count_sides(stage: Stage) -> int:
    """Sequences per row: two for a pair."""
    return 2 if ROW_TYPE_BY_METHOD[stage.method] == "preference" else 1


def cut_rows(stage: Stage, rows: Rows) -> Rows:
    """Rows before packing. `bfd_split` splits rows that are too long, where other strategies truncate them."""
    if not stage.args.get("packing") or setting(stage, "packing_strategy") != "bfd_split" or not rows.lengths:
        return rows
    cut, lengths = max_length(stage), Counter[int]()
    for length, number in rows.lengths.items():
        lengths[cut] += number * (length // cut)
        lengths[length % cut] += number
    del lengths[0]
    return replace(rows, train=lengths.total(), lengths=+lengths)


def count_sequences(stage: Stage, rows: Rows) -> int | None:
    """Rows that the trainer batches: the training rows, or packed rows; None if unknown."""
    if rows.train is None or not stage.args.get("packing"):
        return rows.train
    return count_packed(rows.lengths, max_length(stage)) if rows.lengths else None


def count_work(stage: Stage, rows: Rows, schedule: Schedule, cost: Cost) -> Work | None:
    """The work of a stage; None if the tokens of its rows are unknown.

    Besides the passes with gradients there are passes without: the reference model of DPO and KTO; mismatched prompts
    and answers of KTO, in both models; sampling of GRPO and, if `beta` is not 0, its reference model; and validation.
    """
    cut, sides = max_length(stage), count_sides(stage)
    mean, square = rows.mean(cut), rows.mean_square(cut)
    if mean is None or square is None or rows.train is None:
        return None
    if stage.method == "grpo":
        seen = float(schedule.steps * schedule.effective_batch)
        mean += setting(stage, "max_completion_length")
        square = mean**2
    else:
        seen = count_seen(schedule) * rows.train / schedule.sequences * sides
    tokens, attended = seen * mean, seen * square
    trained = cost.of(tokens, attended, True)
    forward = cost.of(tokens, attended, False)
    once = cost.of(rows.train * sides * mean, rows.train * sides * square, False)
    is_precomputed = bool(stage.args.get("precompute_ref_log_probs"))
    match stage.method:
        case "dpo":
            others = once if is_precomputed else forward
        case "kto":
            has_mismatched = stage.args.get("loss_type", "kto") == "kto"
            references = once if is_precomputed else forward
            others = references * (2 if has_mismatched else 1) + (forward if has_mismatched else 0)
        case "grpo":
            others = forward / setting(stage, "num_iterations") + (forward if stage.args.get("beta") else 0)
        case _:
            others = 0.0
    validation = once * (rows.validation or 0) / rows.train * _count_evaluations(stage, rows, schedule)
    recomputed = forward if stage.args.get("gradient_checkpointing") else 0.0
    return Work(tokens, trained + others + validation, recomputed)


def count_seen(schedule: Schedule) -> int:
    """Sequences that a stage trains on: all of complete epochs, and full batches of the last one."""
    epochs, steps = divmod(schedule.steps, schedule.steps_per_epoch)
    return epochs * schedule.sequences + min(steps * schedule.effective_batch, schedule.sequences)


def make_batch(stage: Stage, rows: Rows, schedule: Schedule | None) -> Batch | None:
    """The largest batch of one process; None if the length of rows has no known bound."""
    per_device, cut = setting(stage, "per_device_train_batch_size"), max_length(stage)
    batches = schedule.steps * setting(stage, "gradient_accumulation_steps") if schedule else KEPT_SIZES
    if stage.args.get("packing"):
        return Batch(per_device * cut, cut, padded=False, sizes=batches)
    longest = rows.longest or (cut if cut < NO_LENGTH else max(rows.lengths, default=None))
    if longest is None:
        return None
    if stage.method == "grpo":
        longest += setting(stage, "max_completion_length")
    length = min(longest, cut)
    sequences = per_device * count_sides(stage)
    padded = sequences > 1 and not stage.args.get("padding_free")
    vary = stage.args.get("padding_free") or stage.method == "grpo" or not rows.lengths
    sizes = batches if vary else _count_sizes(rows.lengths, per_device, batches)
    return Batch(sequences * length, length, padded, sizes)


def _count_sizes(lengths: Counter[int], per_batch: int, batches: float) -> float:
    """Expected number of distinct lengths of padded batches. The length of a batch is that of its longest row.

    The probability that none of n random rows is longer than l is F(l)^n. An event of probability p occurs in m batches
    with 1 - (1 - p)^m. Lengths from a histogram are middles of bars, and represent all lengths of their bar.
    """
    total, upto, sizes, ordered = lengths.total(), 0, 0.0, sorted(lengths)
    width = min((after - before for before, after in pairwise(ordered)), default=1)
    for length in ordered:
        below, upto = upto, upto + lengths[length]
        share = (upto / total) ** per_batch - (below / total) ** per_batch
        sizes += width * (1 - (1 - share / width) ** batches)
    return sizes


def _count_evaluations(stage: Stage, rows: Rows, schedule: Schedule) -> int:
    """Number of validations during training. Those of GRPO, which sample answers, are not counted."""
    if not rows.validation or stage.method == "grpo":
        return 0
    match stage.args.get("eval_strategy", "epoch"):
        case "epoch":
            return math.ceil(schedule.epochs)
        case "steps":
            every = stage.args.get("eval_steps") or stage.args.get("logging_steps", 1)
            # A value below 1 is a share of all steps, as in transformers' `TrainerState.compute_steps`.
            return schedule.steps // (math.ceil(schedule.steps * every) if every < 1 else int(every))
    return 0
