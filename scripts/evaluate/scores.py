"""The form in which every score is written, whatever it was scored on."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from scripts.common.files import write_json, write_json_lines

LEVEL = 0.95


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


def mean_interval(values: "np.ndarray[Any, np.dtype[np.float64]]") -> tuple[float, float]:
    """95 % interval of a mean score: Wilson's for right and wrong, else Student's t, within 0 and 1."""
    n = len(values)
    if set(np.unique(values)) <= {0.0, 1.0}:
        interval = stats.binomtest(int(values.sum()), n).proportion_ci(LEVEL, method="wilson")
        return float(interval.low), float(interval.high)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n) if n > 1 else 1.0
    return max(0.0, float(values.mean() - half)), min(1.0, float(values.mean() + half))
