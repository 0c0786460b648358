"""The filters of single rows. A judge returns for each row why to remove it, or None to keep it."""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from scripts.common.config import Filters, RowType
from scripts.common.errors import UserError, nearest
from scripts.common.records import Turns
from scripts.common.user_function import load_function
from scripts.data.benchmark_overlap import Hit, OverlapIndex
from scripts.data.schemas import Row, answers, sides
from scripts.data.texts import Hashes, digest, hash_words, normalise, roll, split_words
from scripts.data.token_counter import TokenCounter

CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>")

REPEATED_WORDS = 5
"""Words in the sequences whose repetition is counted."""

LANGUAGE_TEXT = 250
"""Characters that the language is detected from."""

_CANNOT = r"i(?: can(?:no|')t| won't|(?: am|'m) (?:not able|unable))"

REFUSALS = (
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b",
    r"\bi(?:'m| am) (?:just )?an? (?:ai|(?:large )?language model)\b",
    r"\bmy (?:training data|knowledge cutoff)\b",
    r"作为(?:一个|一名)?(?:人工智能|ai|语言模型)",
    rf"\A\W*(?:i(?:'m| am) sorry|sorry|i apologi[sz]e),? (?:but )?{_CANNOT}\b",
    rf"\A\W*{_CANNOT} (?:to )?(?:assist|help|provide|fulfil|comply|answer|write)\b",
    r"\A\W*(?:很抱歉|抱歉|对不起)[,，]?我(?:无法|不能)",
)
"""Phrases of a model that refuses or talks about itself, matched without case."""


@dataclass(eq=False)
class Candidate:
    """A row that passes through the filters, with what is known about it so far."""

    row: Row
    normal: list[str] = field(default_factory=list)
    """Its normalised turns; for a pair, those of the prompt and of both answers."""
    words: list[pa.ListScalar] = field(default_factory=list)
    """The words of each turn. They stay in Arrow, since only a few rows need them in Python."""
    hashes: list[Hashes] = field(default_factory=list)
    """Hashes of the words of each turn."""
    tokens: int | None = None
    language: str | None = None
    hits: list[Hit] = field(default_factory=list)


Judge = Callable[[list[Candidate]], list[str | None]]


@dataclass(frozen=True)
class Tools:
    """What filters need besides the row.

    Args:
        counter: counts the tokens of conversations with the chat template applied.
        index: search index of the benchmarks' questions and answers.
        taken: digests of the prompts of the data sets in `not_in`.
    """

    counter: TokenCounter
    index: OverlapIndex
    taken: frozenset[bytes] = frozenset()


def row_filters(row_type: RowType, filters: Filters, tools: Tools) -> Iterator[tuple[str, Judge]]:
    """Name and judge of each enabled filter that applies to this row type, in the documented order."""
    if filters.empty:
        yield "empty", _each(lambda row: find_emptiness(row, row_type))
    if filters.roles:
        yield "roles", _each(find_disorder)
    if filters.control_tokens:
        yield "control_tokens", _each(find_control_token)
    if row_type == "preference":
        yield from _pair_filters(filters)
    if filters.refusals and row_type != "prompt":
        yield "refusals", _patterns(REFUSALS)
    if row_type != "prompt":
        yield from ((name, _patterns(patterns)) for name, patterns in filters.patterns.items())
    if (share := filters.max_repetition) is not None and row_type != "prompt":
        yield "max_repetition", lambda candidates: _judge_repetition(candidates, share)
    if filters.languages:
        yield "languages", lambda candidates: _judge_languages(candidates, filters.languages)
    for name, function in filters.functions.items():
        yield name, _own_filter(name, function)
    if filters.min_tokens is not None or filters.max_tokens is not None:
        yield from _token_filters(filters, tools)
    if filters.not_in:
        yield "not_in", lambda candidates: _judge_prompts(candidates, tools.taken)
    if filters.benchmark_overlap != "ignore":
        remove = filters.benchmark_overlap == "remove"
        yield "benchmark_overlap", lambda candidates: _judge_overlap(candidates, tools.index, remove)


def _each(find: Callable[[Row], str | None]) -> Judge:
    return lambda candidates: [find(candidate.row) for candidate in candidates]


# --- turns --------------------------------------------------------------------------------------


def find_emptiness(row: Row, row_type: RowType) -> str | None:
    """No turn may be empty, the user must have a turn, and the last turn must have the expected role."""
    last = "user" if row_type == "prompt" else "assistant"
    for turns in sides(row):
        if not all(turn["content"].strip() for turn in turns):
            return "an empty turn"
        if not any(turn["role"] == "user" for turn in turns):
            return "no user turn"
        if turns[-1]["role"] != last:
            return f"the last turn has the role {turns[-1]['role']}, not {last}"
    return None


def find_disorder(row: Row) -> str | None:
    """An optional system turn comes first. Then user and assistant alternate, starting with the user."""
    for turns in sides(row):
        roles = [turn["role"] for turn in turns]
        for number, role in enumerate(roles[roles[0] == "system" :]):
            expected = "assistant" if number % 2 else "user"
            if role != expected:
                return f"turn {number + 1 + (roles[0] == 'system')} has the role {role}, not {expected}"
    return None


def find_control_token(row: Row) -> str | None:
    """No turn may contain a control token of the chat template as text: it would be tokenised as the token itself."""
    for turns in sides(row):
        for turn in turns:
            for token in CONTROL_TOKENS:
                if token in turn["content"]:
                    return f"{token} in the text of a {turn['role']} turn"
    return None


# --- pairs --------------------------------------------------------------------------------------


def _pair_filters(filters: Filters) -> Iterator[tuple[str, Judge]]:
    if filters.equal_answers:
        yield "equal_answers", _each(find_equal_answers)
    if (margin := filters.min_margin) is not None:
        yield "min_margin", _each(lambda row: find_small_margin(row, margin))
    if (ratio := filters.max_length_ratio) is not None:
        yield "max_length_ratio", _each(lambda row: find_length_ratio(row, ratio))


def find_equal_answers(row: Row) -> str | None:
    """The answers must differ in more than surrounding white space."""
    chosen, rejected = answers(row)
    return "the two answers are the same" if chosen.strip() == rejected.strip() else None


def score_margin(row: Row) -> float | None:
    """Score of the chosen answer minus score of the rejected one; None unless both have a score."""
    chosen, rejected = row.get("score_chosen"), row.get("score_rejected")
    return None if chosen is None or rejected is None else float(chosen - rejected)


def find_small_margin(row: Row, margin: float) -> str | None:
    """The chosen answer must have the higher score, by at least `margin`."""
    found = score_margin(row)
    if found is None:
        return "no scores"
    return f"a margin of {found:g}" if found < margin else None


def find_length_ratio(row: Row, most: float) -> str | None:
    """The longer answer may have at most `most` times the characters of the shorter."""
    shorter, longer = sorted(len(text.strip()) for text in answers(row))
    if longer > most * shorter:
        return f"{longer} and {shorter} characters"
    return None


# --- answers ------------------------------------------------------------------------------------


def _patterns(patterns: tuple[str, ...] | list[str]) -> Judge:
    """No pattern may match the answer (of a pair, the chosen answer). Case is ignored."""
    compiled = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]

    def judge(candidates: list[Candidate]) -> list[str | None]:
        texts = [answers(candidate.row)[0].replace("’", "'") for candidate in candidates]
        found = [next((m for pattern in compiled if (m := pattern.search(text))), None) for text in texts]
        return [f"'{match.group()[:80]}'" if match else None for match in found]

    return judge


def _judge_repetition(candidates: list[Candidate], most: float) -> list[str | None]:
    """At most this share of an answer's word sequences may occur more than once."""
    read_words(candidates)
    reasons: list[str | None] = []
    for candidate in candidates:
        answer = candidate.hashes[len(sides(candidate.row)[0]) - 1]
        _, times = np.unique(roll(answer, [REPEATED_WORDS])[REPEATED_WORDS], return_counts=True)
        repeated = times[times > 1].sum() / max(1, times.sum())
        reasons.append(
            f"{repeated:.0%} of its {REPEATED_WORDS}-word sequences are repeated" if repeated > most else None
        )
    return reasons


# --- language -----------------------------------------------------------------------------------


def _judge_languages(candidates: list[Candidate], keep: list[str]) -> list[str | None]:
    known = list(_identifier().labels)
    for language in keep:
        if language not in known:
            raise UserError(f"filters.languages: unknown language '{language}'{nearest(language, known)}")
    find_languages(candidates)
    return [None if candidate.language in keep else f"language {candidate.language}" for candidate in candidates]


def find_languages(candidates: list[Candidate]) -> None:
    """Detect the most likely language of each row, as a two-letter code, from the beginning of its text."""
    identifier = _identifier()
    for candidate in candidates:
        if candidate.language is None:
            text = "\n".join(turn["content"] for turn in sides(candidate.row)[0] if turn["role"] != "system")
            candidate.language = identifier.classify(text[:LANGUAGE_TEXT])[0]


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


# --- tokens -------------------------------------------------------------------------------------


def _token_filters(filters: Filters, tools: Tools) -> Iterator[tuple[str, Judge]]:
    if (fewest := filters.min_tokens) is not None:
        yield (
            "min_tokens",
            lambda candidates: _judge_tokens(
                [not _surely(tools.counter.has_at_least, c, fewest) for c in candidates],
                candidates,
                tools,
                lambda tokens: tokens < fewest,
            ),
        )
    if (most := filters.max_tokens) is not None:
        yield (
            "max_tokens",
            lambda candidates: _judge_tokens(
                [not _surely(tools.counter.has_at_most, c, most) for c in candidates],
                candidates,
                tools,
                lambda tokens: tokens > most,
            ),
        )


def _judge_tokens(
    doubtful: list[bool], candidates: list[Candidate], tools: Tools, out: Callable[[int], bool]
) -> list[str | None]:
    """Count only rows near the bound: most are far from it, and counting is the slowest step of all."""
    count_tokens([c for c, doubt in zip(candidates, doubtful, strict=True) if doubt], tools.counter)
    return [
        f"{c.tokens} tokens" if doubt and c.tokens is not None and out(c.tokens) else None
        for c, doubt in zip(candidates, doubtful, strict=True)
    ]


def count_tokens(candidates: list[Candidate], counter: TokenCounter) -> None:
    """Count the tokens of each row with its chat template (of a pair, the longer side), unless they are known."""
    new = [candidate for candidate in candidates if candidate.tokens is None]
    conversations = [(candidate, turns) for candidate in new for turns in sides(candidate.row)]
    counted = counter.count([turns for _, turns in conversations])
    for (candidate, _), tokens in zip(conversations, counted, strict=True):
        candidate.tokens = max(candidate.tokens or 0, tokens)


def _surely(is_sure: Callable[[Turns, int], bool], candidate: Candidate, bound: int) -> bool:
    """Whether all sides of a row are certain to keep the bound, without counting."""
    return candidate.tokens is None and all(is_sure(turns, bound) for turns in sides(candidate.row))


# --- overlap ------------------------------------------------------------------------------------


def read_words(candidates: list[Candidate]) -> None:
    """Split the turns into words and hash them, unless that is done."""
    new = [candidate for candidate in candidates if not candidate.words]
    normalise_turns(new)
    words = split_words([turn for candidate in new for turn in candidate.normal])
    hashes, offsets = hash_words(words)
    turns = zip(words, np.split(hashes, offsets[1:-1]), strict=True) if len(words) else iter(())
    for candidate in new:
        own = [next(turns) for _ in candidate.normal]
        candidate.words = [words for words, _ in own]
        candidate.hashes = [hashes for _, hashes in own]


def normalise_turns(candidates: list[Candidate]) -> None:
    """Normalise the turns of each row, unless that is done."""
    new = [candidate for candidate in candidates if not candidate.normal]
    turns = [all_turns(candidate.row) for candidate in new]
    normal = iter(normalise([turn["content"] for row in turns for turn in row]))
    for candidate, row in zip(new, turns, strict=True):
        candidate.normal = [next(normal) for _ in row]


def all_turns(row: Row) -> list[dict[str, str]]:
    """All turns of a row, without repeating the prompt of a pair."""
    first, *others = sides(row)
    return first + [turn for turns in others for turn in turns[len(row["prompt"]) :]]


def prompt_key(candidate: Candidate) -> bytes:
    """A digest of the row's prompt."""
    return digest(normal_prompt(candidate))


def normal_prompt(candidate: Candidate) -> str:
    """The normalised user turns, one line each."""
    turns = zip(all_turns(candidate.row), candidate.normal, strict=True)
    return "\n".join(normal for turn, normal in turns if turn["role"] == "user")


def text_key(candidate: Candidate) -> bytes:
    """A digest of all normalised turns of the row."""
    return digest("\x1f".join(candidate.normal))


def _judge_prompts(candidates: list[Candidate], taken: frozenset[bytes]) -> list[str | None]:
    normalise_turns(candidates)
    return ["another data set has the prompt" if prompt_key(candidate) in taken else None for candidate in candidates]


def _judge_overlap(candidates: list[Candidate], index: OverlapIndex, remove: bool) -> list[str | None]:
    read_words(candidates)
    prompts = [normal_prompt(candidate) for candidate in candidates]
    hits = index.find([c.words for c in candidates], [np.concatenate(c.hashes) for c in candidates], prompts)
    for candidate, found in zip(candidates, hits, strict=True):
        candidate.hits = found
    return [f"{found[0].benchmark}, item {found[0].item}" if found and remove else None for found in hits]


# --- user functions -----------------------------------------------------------------------------


def _own_filter(name: str, path: str) -> Judge:
    """A user function: True keeps a row; False, or a reason as text, removes it."""
    function = load_function(path, f"filters.functions.{name}")

    def find(row: Row) -> str | None:
        try:
            kept = function(copy.deepcopy(row))
        except Exception as error:
            raise UserError(
                f"filters.functions.{name}: {path} failed on row {row['source_index']}: {type(error).__name__}: {error}"
            ) from error
        if isinstance(kept, bool | np.bool_):
            return None if kept else f"{name} returned False"
        if isinstance(kept, str):
            return kept
        raise UserError(
            f"filters.functions.{name}: {path} returned {type(kept).__name__}; return True, False or a reason as text"
        )

    return _each(find)
