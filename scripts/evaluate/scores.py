"""The form in which every score is written, whatever it was scored on."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy import special  # a tenth of the start of scipy.stats, which would be as long as that of torch

from scripts.common.files import write_json, write_json_lines

LEVEL = 0.95

RESAMPLES = 10_000
"""Draws of a bootstrap."""


def write_scores(scores: Path, items_path: Path, items: list[dict[str, Any]], **facts: Any) -> float:
    """Write the items and, after them, their mean with n and a 95 % interval; returns the mean.

    Items have `key`, `prompt`, `target`, `answer` and `score` (0 to 1).
    """
    values = np.array([item["score"] for item in items])
    low, high = mean_interval(values)
    write_json_lines(items_path, items)
    write_json(
        scores,
        {name: facts.pop(name) for name in ("benchmark", "model", "task", "metric")}
        | {"n": len(items), "score": float(values.mean()), "ci_low": low, "ci_high": high}
        | facts,
    )
    return float(values.mean())


def describe_values(values: "list[np.ndarray[Any, np.dtype[np.float64]]]", is_share: bool = True) -> dict[str, Any]:
    """n, mean and 95 % interval of a metric with one or several values an item; these are drawn together.

    The bounds of a single value that is no share are None.

    Args:
        is_share: the values lie between 0 and 1.
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


def mean_interval(values: "np.ndarray[Any, np.dtype[np.float64]]", is_share: bool = True) -> tuple[float, float]:
    """95 % interval of a mean score: Wilson's for right and wrong, else Student's t; that of a share within 0 and 1."""
    n = len(values)
    if is_share and set(np.unique(values)) <= {0.0, 1.0}:
        return wilson(float(values.mean()), n)
    half = special.stdtrit(n - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    low, high = float(values.mean() - half), float(values.mean() + half)
    return (max(0.0, low), min(1.0, high)) if is_share else (low, high)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n (Journal of the American Statistical Association 22, 1927, 209-212)."""
    z = float(special.ndtri((1 + LEVEL) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return (0.0 if share == 0 else float(middle - half)), (1.0 if share == 1 else float(middle + half))
