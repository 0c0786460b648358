"""Rows and tokens of a data set: measured where its rows are there, else as far as the configuration tells."""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from scripts.common.config import Config
from scripts.common.data_config import MixtureDataset, PackageDataset, RejectionsDataset
from scripts.common.files import read_json
from scripts.plan.steps import NO_LENGTH


@dataclass(frozen=True)
class Rows:
    """What a stage would train on.

    Args:
        train: training rows; None when nobody knows.
        validation: rows of the validation loss; None when nobody knows.
        rows_are: `measured`, `expected` (the configuration says so), `at most` (before filtering) or `unknown`.
        lengths: how many training rows have so many tokens (of a pair, the longer side); empty when not known.
        longest: tokens of the longest training row, or what a filter lets pass; None when not known.
        tokens_are: `measured`, `expected`, `at most` (each row is taken for as long as it may be) or `unknown`.
    """

    train: int | None
    validation: int | None
    rows_are: str
    lengths: Counter[int]
    longest: int | None
    tokens_are: str

    def mean(self, cut: int) -> float | None:
        """Mean tokens of a row that is cut at `cut` tokens."""
        return self._mean_of(cut, 1)

    def mean_square(self, cut: int) -> float | None:
        """Mean of the squared tokens, which attention costs by."""
        return self._mean_of(cut, 2)

    def _mean_of(self, cut: int, power: int) -> float | None:
        rows = self.lengths.total()
        return sum(n * min(length, cut) ** power for length, n in self.lengths.items()) / rows if rows else None


def read_rows(config: Config, dataset: str, work: Path) -> Rows:
    """Rows of a data set of this run.

    Args:
        work: the run's folder of heavy files.
    """
    folder = work / "datasets" / dataset
    if (folder / "summary.json").is_file() and (folder / "manifest.json").is_file():
        return _measured(read_json(folder / "summary.json")["tokens"])
    section = config.datasets[dataset]
    found, rows_are = _count_rows(config, dataset, work)
    train = None
    if found is not None:
        sampled = min(found, section.sample.rows) if section.sample else found
        train = max(0, sampled - section.validation - section.test)
    tokens = section.expected.tokens
    lengths = Counter({round(tokens): train or 1}) if tokens else Counter[int]()
    tokens_are = "expected" if tokens else "unknown"
    return Rows(train, section.validation, rows_are, lengths, section.filters.max_tokens, tokens_are)


def bound_lengths(rows: Rows, cut: int) -> Rows:
    """Rows whose lengths nobody knows, each taken for the longest that may be: what a filter or `cut` lets pass."""
    if rows.lengths or not rows.train or (cut >= NO_LENGTH and rows.longest is None):
        return rows
    longest = min(cut, rows.longest or cut)
    return replace(rows, lengths=Counter({longest: rows.train}), tokens_are="at most")


def _measured(tokens: dict[str, Any]) -> Rows:
    """Of the summary that the filters wrote: counted rows by bars of a histogram, of which the middles are taken."""
    train, edges = tokens["splits"]["train"], tokens["edges"]
    lengths: Counter[int] = Counter()
    if train["counted"]:
        scale = train["rows"] / train["counted"]
        middles = [(low + high - 1) // 2 for low, high in pairwise(edges)]
        for middle, rows in zip(middles, train["counts"], strict=True):
            lengths[middle] += round(rows * scale)
    return Rows(
        train=train["rows"],
        validation=tokens["splits"]["validation"]["rows"],
        rows_are="measured",
        lengths=+lengths,
        longest=train.get("max"),
        tokens_are="measured" if train["counted"] else "unknown",
    )


def _count_rows(config: Config, dataset: str, work: Path) -> tuple[int | None, str]:
    """Rows before samples and splits, and how sure that is."""
    section, source = config.datasets[dataset], work / "datasets" / dataset / "source.json"
    if section.expected.rows:
        return section.expected.rows, "expected"
    if source.is_file():
        return int(read_json(source)["facts"]["rows"]), "at most"
    match section.source:
        case PackageDataset(size=size):
            return size, "at most"
        case RejectionsDataset(dataset=asked, samples=samples):
            questions, _ = _count_rows(config, asked, work)
            return (questions * samples, "at most") if questions is not None else (None, "unknown")
        case MixtureDataset(parts=parts) if all(part.rows for part in parts.values()):
            return sum(part.rows or 0 for part in parts.values()), "at most"
    return None, "unknown"
