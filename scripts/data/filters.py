"""The filters that judge each row by itself. A judge says of every row why it must go, or None when it may stay."""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from scripts.common.data_config import Filters, Form
from scripts.common.errors import UserError, nearest
from scripts.common.user_function import load_function
from scripts.data.benchmark_overlap import Hit, OverlapIndex
from scripts.data.schemas import Row, Turns, answers, sides
from scripts.data.texts import Hashes, digest, hash_words, normalise, roll, split_words
from scripts.data.token_counter import TokenCounter

CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>")

REPEATED_WORDS = 5
"""Words of the sequences whose repetition is counted."""

LANGUAGE_TEXT = 250
"""Characters that the language is found by."""

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
"""Phrases of a model that refuses or speaks of itself; case does not matter."""


@dataclass(eq=False)
class Candidate:
    """A row on its way through the filters, with what is known of it so far."""

    row: Row
    normal: list[str] = field(default_factory=list)
    """Its turns, normalised: of a pair, those of the prompt and both answers."""
    words: list[pa.ListScalar] = field(default_factory=list)
    """Of each turn; left in Arrow, since those of few rows are looked at."""
    hashes: list[Hashes] = field(default_factory=list)
    """Of the words of each turn."""
    tokens: int | None = None
    language: str | None = None
    hits: list[Hit] = field(default_factory=list)


Judge = Callable[[list[Candidate]], list[str | None]]


@dataclass(frozen=True)
class Tools:
    """What filters need besides the row.

    Args:
        counter: counts the tokens of templated conversations.
        index: what the benchmarks ask and answer.
        taken: digests of the prompts of the data sets in `not_in`.
    """

    counter: TokenCounter
    index: OverlapIndex
    taken: frozenset[bytes] = frozenset()


def row_filters(form: Form, filters: Filters, tools: Tools) -> Iterator[tuple[str, Judge]]:
    """Name and judge of each filter that is on and concerns this form, in the documented order."""
    if filters.empty:
        yield "empty", _each(lambda row: find_emptiness(row, form))
    if filters.roles:
        yield "roles", _each(find_disorder)
    if filters.control_tokens:
        yield "control_tokens", _each(find_control_token)
    if form == "preference":
        yield from _pair_filters(filters)
    if filters.refusals and form != "prompt":
        yield "refusals", _patterns(REFUSALS)
    if form != "prompt":
        yield from ((name, _patterns(patterns)) for name, patterns in filters.patterns.items())
    if (share := filters.max_repetition) is not None and form != "prompt":
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


def find_emptiness(row: Row, form: Form) -> str | None:
    """Every turn must say something, the user must ask, and the right one must have the last word."""
    last = "user" if form == "prompt" else "assistant"
    for turns in sides(row):
        if not all(turn["content"].strip() for turn in turns):
            return "an empty turn"
        if not any(turn["role"] == "user" for turn in turns):
            return "no turn of the user"
        if turns[-1]["role"] != last:
            return f"the last turn is the {turns[-1]['role']}'s, not the {last}'s"
    return None


def find_disorder(row: Row) -> str | None:
    """A system turn first or not at all, then user and assistant in turn, beginning with the user."""
    for turns in sides(row):
        roles = [turn["role"] for turn in turns]
        for number, role in enumerate(roles[roles[0] == "system" :]):
            expected = "assistant" if number % 2 else "user"
            if role != expected:
                return f"turn {number + 1 + (roles[0] == 'system')} is the {role}'s, where the {expected}'s is due"
    return None


def find_control_token(row: Row) -> str | None:
    """No turn may hold a token of the chat template as text, which the tokenizer would take for the token itself."""
    for turns in sides(row):
        for turn in turns:
            for token in CONTROL_TOKENS:
                if token in turn["content"]:
                    return f"{token} in the {turn['role']}'s text"
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
    """The answers must differ by more than the white space around them."""
    chosen, rejected = answers(row)
    return "the two answers are the same" if chosen.strip() == rejected.strip() else None


def score_margin(row: Row) -> float | None:
    """How much better the chosen answer was scored; None without both scores."""
    chosen, rejected = row.get("score_chosen"), row.get("score_rejected")
    return None if chosen is None or rejected is None else float(chosen - rejected)


def find_small_margin(row: Row, margin: float) -> str | None:
    """The chosen answer must have been scored better by at least `margin`."""
    found = score_margin(row)
    if found is None:
        return "no scores"
    return f"a margin of {found:g}" if found < margin else None


def find_length_ratio(row: Row, most: float) -> str | None:
    """The longer answer may have at most `most` characters for one of the shorter."""
    shorter, longer = sorted(len(text.strip()) for text in answers(row))
    if longer > most * shorter:
        return f"{longer} and {shorter} characters"
    return None


# --- answers ------------------------------------------------------------------------------------


def _patterns(patterns: tuple[str, ...] | list[str]) -> Judge:
    """Rows in whose answer, the preferred one of a pair, no pattern is found; case does not matter."""
    compiled = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]

    def judge(candidates: list[Candidate]) -> list[str | None]:
        texts = [answers(candidate.row)[0].replace("’", "'") for candidate in candidates]
        found = [next((m for pattern in compiled if (m := pattern.search(text))), None) for text in texts]
        return [f"'{match.group()[:80]}'" if match else None for match in found]

    return judge


def _judge_repetition(candidates: list[Candidate], most: float) -> list[str | None]:
    """At most this share of an answer's sequences of words may stand in it more than once."""
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
    """Set the likeliest language of each row, as a two-letter code, by the beginning of what its turns say."""
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
    """Count only rows in doubt: most are far from the bound, and counting is the slowest step of all."""
    count_tokens([c for c, doubt in zip(candidates, doubtful, strict=True) if doubt], tools.counter)
    return [
        f"{c.tokens} tokens" if doubt and c.tokens is not None and out(c.tokens) else None
        for c, doubt in zip(candidates, doubtful, strict=True)
    ]


def count_tokens(candidates: list[Candidate], counter: TokenCounter) -> None:
    """Set the tokens of each templated row, those of the longer side of a pair, unless they are known."""
    new = [candidate for candidate in candidates if candidate.tokens is None]
    conversations = [(candidate, turns) for candidate in new for turns in sides(candidate.row)]
    counted = counter.count([turns for _, turns in conversations])
    for (candidate, _), tokens in zip(conversations, counted, strict=True):
        candidate.tokens = max(candidate.tokens or 0, tokens)


def _surely(tells: Callable[[Turns, int], bool], candidate: Candidate, bound: int) -> bool:
    """Whether the bound surely holds for all sides of a row."""
    return candidate.tokens is None and all(tells(turns, bound) for turns in sides(candidate.row))


# --- overlap ------------------------------------------------------------------------------------


def read_words(candidates: list[Candidate]) -> None:
    """Set the words of each turn and their hashes, unless they are known."""
    new = [candidate for candidate in candidates if not candidate.words]
    normalise_turns(new)
    words = split_words([turn for candidate in new for turn in candidate.normal])
    hashes, offsets = hash_words(words)
    turns = zip(words, np.split(hashes, offsets[1:-1]), strict=True) if len(words) else iter(())
    for candidate in new:
        own = [next(turns) for _ in candidate.normal]
        candidate.words = [said for said, _ in own]
        candidate.hashes = [hashed for _, hashed in own]


def normalise_turns(candidates: list[Candidate]) -> None:
    """Set the normalised turns of each row, unless they are known."""
    new = [candidate for candidate in candidates if not candidate.normal]
    turns = [all_turns(candidate.row) for candidate in new]
    normal = iter(normalise([turn["content"] for row in turns for turn in row]))
    for candidate, row in zip(new, turns, strict=True):
        candidate.normal = [next(normal) for _ in row]


def all_turns(row: Row) -> list[dict[str, str]]:
    """Every turn of a row once."""
    first, *others = sides(row)
    return first + [turn for turns in others for turn in turns[len(row["prompt"]) :]]


def prompt_key(candidate: Candidate) -> bytes:
    """Stands for the row's prompt."""
    return digest(normal_prompt(candidate))


def normal_prompt(candidate: Candidate) -> str:
    """What the user says, normalised, a line a turn."""
    turns = zip(all_turns(candidate.row), candidate.normal, strict=True)
    return "\n".join(normal for turn, normal in turns if turn["role"] == "user")


def text_key(candidate: Candidate) -> bytes:
    """Stands for all that the row says, normalised."""
    return digest("\x1f".join(candidate.normal))


def _judge_prompts(candidates: list[Candidate], taken: frozenset[bytes]) -> list[str | None]:
    normalise_turns(candidates)
    return ["the prompt is taken" if prompt_key(candidate) in taken else None for candidate in candidates]


def _judge_overlap(candidates: list[Candidate], index: OverlapIndex, remove: bool) -> list[str | None]:
    read_words(candidates)
    prompts = [normal_prompt(candidate) for candidate in candidates]
    hits = index.find([c.words for c in candidates], [np.concatenate(c.hashes) for c in candidates], prompts)
    for candidate, found in zip(candidates, hits, strict=True):
        candidate.hits = found
    return [f"{found[0].benchmark}, item {found[0].item}" if found and remove else None for found in hits]


# --- filters of the user's own ------------------------------------------------------------------


def _own_filter(name: str, path: str) -> Judge:
    """A function of the user's: True keeps a row; False, or a reason, removes it."""
    function = load_function(path, f"filters.functions.{name}")

    def find(row: Row) -> str | None:
        try:
            kept = function(copy.deepcopy(row))
        except Exception as error:
            raise UserError(
                f"filters.functions.{name}: {path} failed on row {row['source_index']}: {type(error).__name__}: {error}"
            ) from error
        if isinstance(kept, bool | np.bool_):
            return None if kept else f"{name} said no"
        if isinstance(kept, str):
            return kept
        raise UserError(
            f"filters.functions.{name}: {path} gave {type(kept).__name__}; True, False or a reason as text is needed"
        )

    return _each(find)
