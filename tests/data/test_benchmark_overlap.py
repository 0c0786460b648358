"""Benchmark items are found in training rows in any formatting, with few false positives."""

import random
import string
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.common.config import Filters
from scripts.common.files import write_json_lines
from scripts.common.records import Question
from scripts.data.benchmark_overlap import SEQUENCE, SHARE, SHORTEST, Hit, OverlapIndex
from scripts.data.filters import Candidate, Tools, row_filters
from scripts.data.token_counter import TokenCounter

FALSE_POSITIVES = 0.001
"""Largest acceptable share of clean rows in which a benchmark text is found."""

OTHERS_OFF = {"empty": False, "roles": False, "control_tokens": False, "equal_answers": False}


def _candidate(question: str, answer: str = "-") -> Candidate:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Candidate({"source_index": 0, "messages": turns, "answer": None})


def _find(index: OverlapIndex, candidates: list[Candidate], mode: str = "remove") -> list[str | None]:
    """The reasons that the filter gives. Its hits are stored in the candidates."""
    filters = Filters.model_validate(OTHERS_OFF | {"benchmark_overlap": mode})
    ((name, judge),) = row_filters("messages", filters, Tools(TokenCounter(Path()), index))
    assert name == "benchmark_overlap"
    return judge(candidates)


def _index(*texts: str, name: str = "b") -> OverlapIndex:
    """An index of a benchmark with one item for each text."""
    return OverlapIndex({name: [{"question": text, "texts": [text]} for text in texts]})


def _hits(index: OverlapIndex, question: str, answer: str = "-") -> list[Hit]:
    candidate = _candidate(question, answer)
    _find(index, [candidate])
    return candidate.hits


def _words(prefix: str, size: int) -> str:
    return " ".join(f"{prefix}{place}" for place in range(size))


# --- the rule -----------------------------------------------------------------------------------

LONG = _words("long", 40)


def test_a_text_is_found_in_the_question_and_in_the_answer() -> None:
    index = _index(LONG)
    for hits in (_hits(index, LONG), _hits(index, "say it", f"Well: {LONG}, that is all")):
        assert hits == [Hit("b", 0, 1.0, LONG[:300])]


def test_the_reason_and_the_hits_name_the_item() -> None:
    index = OverlapIndex(
        {
            "first": [{"question": "not looked for", "texts": [_words("x", 20)]}],
            "second": [{"question": "-", "texts": [_words("y", 20)]}, {"question": "-", "texts": [_words("z", 20)]}],
        }
    )
    candidate = _candidate(f"{_words('z', 20)} and {_words('x', 12)}", _words("x", 16))
    assert _find(index, [candidate]) == ["second, item 1"]
    assert [(hit.benchmark, hit.item, hit.share) for hit in candidate.hits] == [("second", 1, 1.0), ("first", 0, 0.8)]


def test_flag_finds_and_removes_nothing() -> None:
    candidate = _candidate(LONG)
    assert _find(_index(LONG), [candidate], "flag") == [None]
    assert [hit.item for hit in candidate.hits] == [0]


def test_the_question_is_searched_for_if_an_item_has_no_texts() -> None:
    index = OverlapIndex({"b": [{"question": LONG, "texts": []}]})
    assert [hit.share for hit in _hits(index, LONG)] == [1.0]


def test_one_shared_phrase_is_not_enough() -> None:
    """First 13 of 40 words are shared, then 26 of them in two spans."""
    words = LONG.split()
    index = _index(LONG)
    assert _hits(index, f"something else {' '.join(words[5:18])} and more") == []
    (hit,) = _hits(index, f"{' '.join(words[:13])} something else {' '.join(words[27:])}")
    assert (hit.share, hit.span) == (0.65, " ".join(words[:13]))


def test_half_of_the_words_must_be_covered() -> None:
    words = LONG.split()
    index = _index(LONG)
    assert [hit.share for hit in _hits(index, " ".join(words[3:23]))] == [SHARE]
    assert _hits(index, " ".join(words[3:22])) == []


def test_spans_of_fewer_than_13_words_cover_nothing() -> None:
    words = LONG.split()
    pieces = [" ".join(words[i : i + SEQUENCE - 1]) for i in range(0, 40, SEQUENCE - 1)]
    assert _hits(_index(LONG), " and ".join(pieces)) == []


def test_a_few_changed_words_hide_nothing() -> None:
    words = LONG.split()
    words[13], words[27] = "changed", "changed"
    (hit,) = _hits(_index(LONG), " ".join(words))
    assert (hit.share, hit.span) == (26 / 40, " ".join(words[:13]))
    words[6], words[20] = "changed", "changed"
    assert _hits(_index(LONG), " ".join(words)) == [], "no span of 13 words is left"


@pytest.mark.parametrize("size", range(SHORTEST, SEQUENCE))
def test_a_text_of_8_to_12_words_must_be_contiguous(size: int) -> None:
    text = _words("short", size)
    index = _index(text)
    assert [hit.share for hit in _hits(index, f"please tell me {text} or not")] == [1.0]
    changed = text.replace("short3", "changed")
    assert _hits(index, changed) == [] == _hits(index, text.rpartition(" ")[0])


def test_a_shorter_text_counts_only_as_the_complete_prompt() -> None:
    index = _index("What is the capital of France?")
    assert _hits(index, "what is the  CAPITAL of France?\n") == [Hit("b", 0, 1.0, "(the complete prompt)")]
    assert _hits(index, "What is the capital of France? Answer in one word.") == []
    assert _hits(index, "Ask me.", "What is the capital of France?") == []


def test_a_text_of_few_letters_counts_only_as_the_complete_prompt() -> None:
    """Eight Chinese characters count as eight words, with as little content as two or three English words."""
    text = "今天天气怎么样呀"
    index = _index(text)
    assert _hits(index, text) == [Hit("b", 0, 1.0, "(the complete prompt)")]
    assert _hits(index, f"我想问你,{text}?") == [] == _hits(index, "x", text)


@pytest.mark.parametrize(("last", "found"), [("four", 1), ("six", 0)])
def test_twenty_five_letters_are_enough_inside_other_text(last: str, found: int) -> None:
    """Seven words of three letters, and one of four or three."""
    text = f"one two ten red big old new {last}"
    assert len(_hits(_index(text), f"please say {text} again")) == found


@pytest.mark.parametrize("prompt", ["what is the capital of france", "“What is the capital of France?”"])
def test_punctuation_of_a_complete_prompt_does_not_matter(prompt: str) -> None:
    assert len(_hits(_index("What is the capital of France?"), prompt)) == 1


def test_operators_and_numbers_of_a_short_problem_matter() -> None:
    index = _index("What is 4 + 3 - 2?")
    assert len(_hits(index, "What is 4+3-2 ?")) == 1
    others = ("What is 4 - 3 + 2?", "What is 4 + 3 - 5?", "What is 4 3 2?")
    assert [_hits(index, prompt) for prompt in others] == [[]] * 3


def test_a_text_is_not_found_across_two_rows() -> None:
    half, other = _words("a", 20), _words("b", 20)
    index = _index(f"{half} {other}", _words("c", 9))
    candidates = [_candidate("-", half[:-4]), _candidate("x"), _candidate("-", _words("c", 5))]
    candidates.append(_candidate("c5 c6 c7 c8"))
    assert _find(index, candidates) == [None] * 4


def test_all_turns_of_a_row_are_searched() -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
    turns += [{"role": "user", "content": LONG}, {"role": "assistant", "content": "well"}]
    candidate = Candidate({"source_index": 0, "messages": turns, "answer": None})
    assert _find(_index(LONG), [candidate]) == ["b, item 0"]


def test_the_longest_span_is_shown_and_cut() -> None:
    words = _words("averyveryverylongword", 60).split()
    (hit,) = _hits(_index(" ".join(words)), f"{' '.join(words[:15])} - {' '.join(words[16:])}")
    assert hit.span == " ".join(words[16:])[:300]


def test_an_item_is_reported_with_its_most_covered_text() -> None:
    question, solution = _words("q", 30), _words("s", 30)
    index = OverlapIndex({"b": [{"question": question, "texts": [question, solution]}]})
    (hit,) = _hits(index, " ".join(question.split()[:20]), solution)
    assert (hit.share, hit.span) == (1.0, solution)


def test_the_same_question_in_two_benchmarks_is_a_hit_of_both() -> None:
    items: list[Question] = [{"question": LONG, "texts": [LONG]}]
    candidate = _candidate(LONG)
    assert _find(OverlapIndex({"one": items, "two": items}), [candidate]) == ["one, item 0"]
    assert [hit.benchmark for hit in candidate.hits] == ["one", "two"]


@pytest.mark.parametrize("questions", [{}, {"b": []}, {"b": [{"question": "", "texts": [""]}]}])
def test_nothing_to_search_for(questions: dict[str, list[Question]]) -> None:
    assert _find(OverlapIndex(questions), [_candidate("a question", "😀"), _candidate(LONG)]) == [None, None]
    assert _find(OverlapIndex(questions), []) == []


def test_hash_collisions_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all hashes are equal, the words decide."""

    def collide(words: Any) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], np.ndarray[Any, np.dtype[np.int64]]]:
        offsets = np.asarray(words.offsets, np.int64)
        return np.zeros(int(offsets[-1] - offsets[0]), np.uint64), offsets - offsets[0]

    monkeypatch.setattr("scripts.data.benchmark_overlap.hash_words", collide)
    monkeypatch.setattr("scripts.data.filters.hash_words", collide)
    index = _index(LONG, _words("other", 30), _words("short", 9))
    candidates = [_candidate(_words("clean", 40)), _candidate(LONG), _candidate(f"x {_words('short', 9)}")]
    assert _find(index, candidates) == [None, "b, item 0", "b, item 2"]
    assert [len(candidate.hits) for candidate in candidates] == [0, 1, 1]


def test_questions_are_read_from_the_file_of_each_benchmark(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("one", "two")}
    for name, path in paths.items():
        write_json_lines(path, [{"question": "-", "texts": [_words(name, 20)]}])
    index = OverlapIndex.read(paths)
    assert _find(index, [_candidate(_words("two", 20)), _candidate("-")]) == ["two, item 0", None]


def _holds(text: list[str], row: list[str]) -> float:
    """The share of the text's words that are covered by sequences in the row, directly from the definition."""
    size = min(len(text), SEQUENCE)
    sequences = {tuple(row[i : i + size]) for i in range(len(row) - size + 1)}
    covered = {
        place
        for i in range(len(text) - size + 1)
        if tuple(text[i : i + size]) in sequences
        for place in range(i, i + size)
    }
    return len(covered) / len(text)


@settings(max_examples=60)
@given(st.data())
def test_hits_match_the_definition(data: st.DataObject) -> None:
    """Texts with few distinct words, so that sequences are repeated within texts and across texts."""
    word = st.sampled_from(["left", "right"])
    texts = data.draw(st.lists(st.lists(word, min_size=SHORTEST, max_size=30), min_size=1, max_size=4))
    rows = []
    for _ in range(data.draw(st.integers(1, 4))):
        pieces = data.draw(st.lists(st.sampled_from(texts) | st.lists(word, max_size=15), max_size=3))
        cut = data.draw(st.integers(0, 10))
        rows.append([word for piece in pieces for word in piece][cut:])
    candidates = [_candidate("q", " ".join(row)) for row in rows]
    _find(_index(*map(" ".join, texts)), candidates)
    for row, candidate in zip(rows, candidates, strict=True):
        shares = {item: _holds(text, ["q", *row]) for item, text in enumerate(texts)}
        assert {hit.item: hit.share for hit in candidate.hits} == {
            item: round(share, 4) for item, share in shares.items() if share >= SHARE
        }


# --- planted contamination ----------------------------------------------------------------------


def _verbatim(text: str, rng: random.Random) -> Candidate:
    return _candidate(text, "I would have to think about that.")


def _reformatted(text: str, rng: random.Random) -> Candidate:
    """Other case, spaces and punctuation after words. Numbers stay the same."""
    words = text.swapcase().split()
    return _candidate("  ".join(word + rng.choice(["", "", ",", "!", "…", "”"]) for word in words), "Here it is.")


def _embedded(text: str, rng: random.Random) -> Candidate:
    """In the middle of an answer."""
    before, after = _sentences(rng, 4), _sentences(rng, 4)
    return _candidate("Give me an exercise with some words around it.", f"{before}\n\n{text}\n\n{after}")


PLANTED = (_verbatim, _reformatted, _embedded)


def _sentences(rng: random.Random, number: int) -> str:
    """Sentences of invented words, which occur in no benchmark."""
    sentences = [
        [f"{rng.choice(string.ascii_lowercase)}{rng.randrange(1000)}" for _ in range(rng.randint(4, 15))]
        for _ in range(number)
    ]
    return " ".join(" ".join(words).capitalize() + "." for words in sentences)


def _plant(index: OverlapIndex, items: list[tuple[str, int, str]], clean: list[Candidate]) -> None:
    """Plant each item among clean rows in every disguise. All must be found, with few false positives."""
    rng = random.Random(11)
    planted = [(disguise(text, rng), benchmark, number) for benchmark, number, text in items for disguise in PLANTED]
    rows = [candidate for candidate, _, _ in planted] + clean
    rng.shuffle(rows)
    for start in range(0, len(rows), 1000):
        _find(index, rows[start : start + 1000])
    missed = [(b, i) for candidate, b, i in planted if (b, i) not in {(h.benchmark, h.item) for h in candidate.hits}]
    wrong = [candidate for candidate in clean if candidate.hits]
    print(f"{len(planted) - len(missed)} of {len(planted)} planted found, {len(wrong)} of {len(clean)} clean rows hit")
    for candidate in wrong[:5]:
        print(candidate.hits[0])
    assert missed == []
    assert len(wrong) <= FALSE_POSITIVES * len(clean)


def test_planted_questions_of_our_own_are_found() -> None:
    rng = random.Random(12)
    names = ["Ada", "Ben", "Chi", "Dora", "Emil"]
    texts = [
        f"{names[i % 5]} has {i + 3} red apples and gives {rng.randint(1, 9)} of them to a friend who lives nearby. "
        f"How many does {names[i % 5]} still have on day {i * 7}?"
        for i in range(20)
    ]
    clean = [_candidate(_sentences(rng, 3), _sentences(rng, 3)) for _ in range(400)]
    clean += [_candidate(f"{names[i % 5]} has apples and gives some of them away, one by one.") for i in range(100)]
    _plant(_index(*texts, name="apples"), [("apples", i, text) for i, text in enumerate(texts)], clean)


def test_planted_questions_of_real_benchmarks_are_found(real_hub: Path) -> None:
    """The clean rows are training questions of GSM8K, which resemble its test questions most closely."""

    def read(file: str) -> list[dict[str, Any]]:
        if not (real_hub / file).exists():
            pytest.skip(f"the test with real benchmarks needs ../shared/data/hub/{file}")
        rows: list[dict[str, Any]] = pq.read_table(real_hub / file).to_pylist()
        return rows

    gsm8k = [[row["question"], row["answer"]] for row in read("openai/gsm8k/main/test.parquet")]
    humaneval = read("openai/openai_humaneval/openai_humaneval/test.parquet")
    texts = {
        "ifeval": [[row["prompt"]] for row in read("google/IFEval/default/train.parquet")],
        "gsm8k": gsm8k,
        "humaneval": [[row["prompt"], row["canonical_solution"]] for row in humaneval],
    }
    index = OverlapIndex(
        {name: [{"question": item[0], "texts": item} for item in items] for name, items in texts.items()}
    )
    rng = random.Random(13)
    sizes = {"ifeval": 17, "gsm8k": 17, "humaneval": 16}
    items = [(name, i, texts[name][i][0]) for name, n in sizes.items() for i in rng.sample(range(len(texts[name])), n)]
    assert len(items) == 50
    train = rng.sample(read("openai/gsm8k/main/train.parquet"), 4000)
    clean = [_candidate(row["question"], row["answer"]) for row in train]
    clean += [_candidate(_sentences(rng, 3), _sentences(rng, 5)) for _ in range(1000)]
    _plant(index, items, clean)
