"""Intervals of scores, and the files in which all scores are written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special  # scipy.stats would take ten times as long to import, as long as torch

from scripts.common.files import write_json, write_json_lines
from scripts.common.records import AnyManifest, Estimate, Item, OtherMetric, Protocol, Score

Values = np.ndarray[Any, np.dtype[np.float64]]

LEVEL = 0.95
"""Confidence level of all intervals here."""

RESAMPLES = 10_000
"""Bootstrap samples."""


def write_scores(
    scores: Path,
    items_path: Path,
    items: Sequence[Item],
    *,
    benchmark: str,
    model: str,
    task: str,
    metric: str,
    others: list[OtherMetric],
    protocol: Protocol,
    provenance: AnyManifest,
) -> float:
    """Write the items, then the score: their mean with n and a 95 % interval. Returns the mean."""
    values = np.array([item["score"] for item in items])
    low, high = mean_interval(values)
    write_json_lines(items_path, items)
    score: Score = {
        "benchmark": benchmark,
        "model": model,
        "task": task,
        "metric": metric,
        "n": len(items),
        "score": float(values.mean()),
        "ci_low": low,
        "ci_high": high,
        "others": others,
        "protocol": protocol,
        "provenance": provenance,
    }
    write_json(scores, score)
    return score["score"]


def describe_values(values: list[Values], is_share: bool = True) -> Estimate:
    """n, mean and 95 % interval of a metric with one or more values per item.

    If an item has several values, the interval is a bootstrap over items. The bounds for a single value that is not a
    share are None.

    Args:
        values: values of each item, shape (values of the item,).
        is_share: whether the values are from 0 to 1.
    """
    flat = np.concatenate(values)
    if len(flat) == len(values):
        low, high = mean_interval(flat, is_share)
    else:
        sums, sizes = np.array([item.sum() for item in values]), np.array([len(item) for item in values])
        drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
        low, high = np.quantile(sums[drawn].sum(1) / sizes[drawn].sum(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "n": len(flat),
        "score": float(flat.mean()),
        "ci_low": float(low) if np.isfinite(low) else None,
        "ci_high": float(high) if np.isfinite(high) else None,
        "is_share": is_share,
    }


def mean_interval(values: Values, is_share: bool = True) -> tuple[float, float]:
    """95 % interval of a mean: Wilson's for shares that are all 0 or 1, else Student's t, within 0 and 1 for shares."""
    n = len(values)
    if is_share and set(np.unique(values)) <= {0.0, 1.0}:
        return wilson(float(values.mean()), n)
    half = special.stdtrit(n - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    low, high = float(values.mean() - half), float(values.mean() + half)
    return (max(0.0, low), min(1.0, high)) if is_share else (low, high)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Journal of the American Statistical Association 22, 1927, 209-212)."""
    z = float(special.ndtri((1 + LEVEL) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return (0.0 if share == 0 else float(middle - half)), (1.0 if share == 1 else float(middle + half))
