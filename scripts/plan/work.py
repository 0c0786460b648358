"""What a stage computes: tokens, model FLOPs, and the batch that must fit the memory."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

from scripts.common.config import FORM_BY_METHOD, Stage
from scripts.common.flops import Cost
from scripts.plan.memory import KEPT_SIZES, Batch
from scripts.plan.rows import Rows
from scripts.plan.steps import NO_LENGTH, Schedule, count_packed, max_length, setting


@dataclass(frozen=True)
class Work:
    """What a stage computes, over all processes.

    Args:
        tokens: that are trained on, with their prompts and without padding. For GRPO at most: answers may end earlier.
        flops: model FLOPs, of references, sampling and validation too.
        recomputed: FLOPs of the activations that checkpointing computes again, which are not among them.
    """

    tokens: float
    flops: float
    recomputed: float


def count_sides(stage: Stage) -> int:
    """Sequences of a row: a pair has two."""
    return 2 if FORM_BY_METHOD[stage.method] == "preference" else 1


def cut_rows(stage: Stage, rows: Rows) -> Rows:
    """Rows as packing takes them: `bfd_split` makes several of one that is too long, where others lose its end."""
    if not stage.args.get("packing") or setting(stage, "packing_strategy") != "bfd_split" or not rows.lengths:
        return rows
    cut, lengths = max_length(stage), Counter[int]()
    for length, number in rows.lengths.items():
        lengths[cut] += number * (length // cut)
        lengths[length % cut] += number
    del lengths[0]
    return replace(rows, train=lengths.total(), lengths=+lengths)


def count_sequences(stage: Stage, rows: Rows) -> int | None:
    """Rows that the trainer batches: the training rows, or what packing makes of them; None when that is not known."""
    if rows.train is None or not stage.args.get("packing"):
        return rows.train
    return count_packed(rows.lengths, max_length(stage)) if rows.lengths else None


def count_work(stage: Stage, rows: Rows, schedule: Schedule, cost: Cost) -> Work | None:
    """What a stage computes; None when the tokens of its rows are not known.

    Beside the passes with gradients there are, without: DPO's and KTO's reference; KTO's pairs of strange prompts and
    answers, through both models; GRPO's sampling and, where `beta` is not 0, its reference; the validation.
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
    is_computed_first = bool(stage.args.get("precompute_ref_log_probs"))
    match stage.method:
        case "dpo":
            beside = once if is_computed_first else forward
        case "kto":
            has_strangers = stage.args.get("loss_type", "kto") == "kto"
            references = once if is_computed_first else forward
            beside = references * (2 if has_strangers else 1) + (forward if has_strangers else 0)
        case "grpo":
            beside = forward / setting(stage, "num_iterations") + (forward if stage.args.get("beta") else 0)
        case _:
            beside = 0.0
    validation = once * (rows.validation or 0) / rows.train * _count_evaluations(stage, rows, schedule)
    recomputed = forward if stage.args.get("gradient_checkpointing") else 0.0
    return Work(tokens, trained + beside + validation, recomputed)


def count_seen(schedule: Schedule) -> int:
    """Sequences that a stage trains on: whole epochs, and the full batches of the last one."""
    epochs, steps = divmod(schedule.steps, schedule.steps_per_epoch)
    return epochs * schedule.sequences + min(steps * schedule.effective_batch, schedule.sequences)


def make_batch(stage: Stage, rows: Rows, schedule: Schedule | None) -> Batch | None:
    """The largest batch of one process; None when nobody knows how long a row may be."""
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
    vary = stage.args.get("padding_free") or stage.method == "grpo"
    sizes = batches if vary else _count_sizes(rows.lengths, per_device, batches)
    return Batch(sequences * length, length, padded, sizes)


def _count_sizes(lengths: Counter[int], per_batch: int, batches: float) -> float:
    """Different lengths that padded batches are expected to have, each that of its longest row.

    Of n rows drawn at random none is longer than l with F(l)^n; in m batches, what has p comes with 1 - (1 - p)^m.
    Lengths that are middles of bars stand for all lengths of their bars.
    """
    total, upto, sizes, ordered = lengths.total(), 0, 0.0, sorted(lengths)
    width = min((after - before for before, after in pairwise(ordered)), default=1)
    for length in ordered:
        below, upto = upto, upto + lengths[length]
        share = (upto / total) ** per_batch - (below / total) ** per_batch
        sizes += width * (1 - (1 - share / width) ** batches)
    return sizes


def _count_evaluations(stage: Stage, rows: Rows, schedule: Schedule) -> int:
    """Validations during training; GRPO's, which sample, are left out."""
    if not rows.validation or stage.method == "grpo":
        return 0
    match stage.args.get("eval_strategy", "epoch"):
        case "epoch":
            return math.ceil(schedule.epochs)
        case "steps":
            every = stage.args.get("eval_steps") or stage.args.get("logging_steps", 1)
            # Below 1 it is a share of all steps, as transformers' `TrainerState.compute_steps` takes it.
            return schedule.steps // (math.ceil(schedule.steps * every) if every < 1 else int(every))
    return 0
