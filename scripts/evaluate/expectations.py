"""What training was expected to change, as it was registered."""

from pathlib import Path

from scripts.common.config import Expected
from scripts.common.files import read_json
from scripts.common.formats import signed_points
from scripts.common.records import Comparison, Registration

Compared = tuple[str, str, str]
"""Baseline, model and benchmark of a comparison."""


def read_expected(path: Path) -> dict[Compared, Expected]:
    """What is expected of each comparison, by the newest entry of `expectations.json`."""
    newest: Registration = read_json(path)[-1]
    return {(one["baseline"], one["model"], one["benchmark"]): one["expected"] for one in newest["expectations"]}


def list_outcomes(comparison: Path, since: float) -> list[str]:
    """One line for each expectation with its outcome, for the end of a run.

    Args:
        comparison: `comparison.json`.
        since: seconds since the epoch. If the file is older or missing, there are no lines.
    """
    if not comparison.is_file() or comparison.stat().st_mtime < since:
        return []
    rows: list[Comparison] = read_json(comparison)
    return [describe_outcome(row) for row in rows if row["outcome"]]


def describe_outcome(row: Comparison) -> str:
    """`confirmed: sft against base: sums improves (+59.3 points, n = 150, adjusted p <0.001)`."""
    holds = f" within {100 * (row['margin'] or 0):g} points" if row["expected"] == "holds" else ""
    p = "<0.001" if row["p_adjusted"] < 0.001 else f"= {row['p_adjusted']:.3f}"
    return (
        f"{row['outcome']}: {row['model']} against {row['baseline']}: {row['benchmark']} {row['expected']}{holds} "
        f"({signed_points(row['difference'])} points, n = {row['n']}, adjusted p {p})"
    )
