"""Rows and tokens of a data set: measured if its rows exist, else estimated from the configuration."""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

from scripts.common.config import Config, MixtureDataset, PackageDataset, RejectionsDataset
from scripts.common.files import read_json
from scripts.common.paths import RunPaths
from scripts.common.records import Certainty, Summary, TokenLengths
from scripts.plan.steps import NO_LENGTH


@dataclass(frozen=True)
class Rows:
    """The rows that a stage trains on.

    Args:
        train: training rows; None if unknown.
        validation: rows for the validation loss; None if unknown.
        rows_are: `measured`, `expected` (from the configuration), `at most` (before filtering) or `unknown`.
        lengths: number of training rows by tokens (of a pair, the longer side); empty if unknown.
        longest: tokens of the longest training row, or the limit of a filter; None if unknown.
        tokens_are: `measured`, `expected`, `at most` (each row has the greatest possible length) or `unknown`.
    """

    train: int | None
    validation: int | None
    rows_are: Certainty
    lengths: Counter[int]
    longest: int | None
    tokens_are: Certainty

    def mean(self, cut: int) -> float | None:
        """Mean tokens of a row truncated to `cut` tokens."""
        return self._mean_of(cut, 1)

    def mean_square(self, cut: int) -> float | None:
        """Mean of the squared tokens, to which the cost of attention is proportional."""
        return self._mean_of(cut, 2)

    def _mean_of(self, cut: int, power: int) -> float | None:
        rows = self.lengths.total()
        return sum(n * min(length, cut) ** power for length, n in self.lengths.items()) / rows if rows else None


def read_rows(config: Config, dataset: str, paths: RunPaths) -> Rows:
    """The rows of a data set of this run."""
    if paths.summary(dataset).is_file() and paths.filtered(dataset).is_file():
        summary: Summary = read_json(paths.summary(dataset))
        return _measured(summary["tokens"])
    section = config.datasets[dataset]
    found, rows_are = _count_rows(config, dataset, paths)
    train = None
    if found is not None:
        sampled = min(found, section.sample.rows) if section.sample else found
        train = max(0, sampled - section.validation - section.test)
    tokens = section.expected.tokens
    lengths = Counter({round(tokens): train or 1}) if tokens else Counter[int]()
    tokens_are: Certainty = "expected" if tokens else "unknown"
    return Rows(train, section.validation, rows_are, lengths, section.filters.max_tokens, tokens_are)


def bound_lengths(rows: Rows, cut: int) -> Rows:
    """Rows of unknown lengths as an upper bound: each has the length that a filter or `cut` allows."""
    if rows.lengths or not rows.train or (cut >= NO_LENGTH and rows.longest is None):
        return rows
    longest = min(cut, rows.longest or cut)
    return replace(rows, lengths=Counter({longest: rows.train}), tokens_are="at most")


def _measured(tokens: TokenLengths) -> Rows:
    """From the summary of the filtered rows: each bar of the histogram counts with its middle length."""
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


def _count_rows(config: Config, dataset: str, paths: RunPaths) -> tuple[int | None, Certainty]:
    """Number of rows before sampling and splitting, and its certainty."""
    section, source = config.datasets[dataset], paths.source(dataset)
    if section.expected.rows:
        return section.expected.rows, "expected"
    if source.is_file():
        return int(read_json(source)["facts"]["rows"]), "at most"
    match section.source:
        case PackageDataset(size=size):
            return size, "at most"
        case RejectionsDataset(dataset=asked, samples=samples):
            questions, _ = _count_rows(config, asked, paths)
            return (questions * samples, "at most") if questions is not None else (None, "unknown")
        case MixtureDataset(parts=parts) if all(part.rows for part in parts.values()):
            return sum(part.rows or 0 for part in parts.values()), "at most"
    return None, "unknown"
