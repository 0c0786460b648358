"""Each filter removes what it documents, gives the reason, and keeps all other rows."""

from pathlib import Path
from typing import Any

import pytest

from scripts.common.config import Filters, RowType
from scripts.common.errors import UserError
from scripts.common.records import Turns
from scripts.common.user_function import load_function
from scripts.data.benchmark_overlap import OverlapIndex
from scripts.data.filters import (
    REFUSALS,
    Candidate,
    Tools,
    count_tokens,
    find_languages,
    normalise_turns,
    prompt_key,
    row_filters,
    score_margin,
    text_key,
)
from scripts.data.schemas import Row
from scripts.data.token_counter import TokenCounter

OFF: dict[str, Any] = {
    **dict.fromkeys(("empty", "roles", "control_tokens", "equal_answers"), False),
    "benchmark_overlap": "ignore",
}


class WordCounter(TokenCounter):
    """Counts words as tokens, and records how many conversations were counted."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.counted = 0

    def count(self, conversations: list[Turns]) -> list[int]:
        self.counted += len(conversations)
        return [sum(len(turn["content"].split()) for turn in turns) for turns in conversations]

    def has_at_least(self, turns: Turns, tokens: int) -> bool:
        return False

    def has_at_most(self, turns: Turns, tokens: int) -> bool:
        return False


TOOLS = Tools(WordCounter(), OverlapIndex({}))


def _turns(*said: str) -> Turns:
    """Turns from texts with a prefix: `u:` user, `a:` assistant, `s:` system."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": roles[text[0]], "content": text[2:]} for text in said]


def _chat(*said: str) -> Row:
    return {"messages": _turns(*said), "answer": None}


def _answer(text: str) -> Row:
    return _chat("u:a question", f"a:{text}")


def _pair(chosen: str, rejected: str, *scores: float | None, prompt: str = "q") -> Row:
    sides = {"prompt": _turns(f"u:{prompt}"), "chosen": _turns(f"a:{chosen}"), "rejected": _turns(f"a:{rejected}")}
    return sides | dict(zip(("score_chosen", "score_rejected"), scores or (None, None), strict=True))


def _reasons(rows: list[Row], row_type: RowType = "messages", tools: Tools = TOOLS, **on: Any) -> list[str | None]:
    """The result of the only enabled filter for each row."""
    filters = Filters.model_validate(OFF | on)
    ((name, judge),) = row_filters(row_type, filters, tools)
    assert name in on or name in filters.patterns or name in filters.functions
    return judge([Candidate(row | {"source_index": index}) for index, row in enumerate(rows)])


# --- which and when -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row_type", "missing"),
    [
        ("messages", {"equal_answers", "min_margin", "max_length_ratio"}),
        ("preference", set()),
        ("kto", {"equal_answers", "min_margin", "max_length_ratio"}),
        ("prompt", {"equal_answers", "min_margin", "max_length_ratio", "refusals", "mine", "max_repetition"}),
    ],
)
def test_filters_come_in_the_documented_order(tmp_path: Path, row_type: RowType, missing: set[str]) -> None:
    """Filters of answers or pairs are omitted for row types without them."""
    function = tmp_path / "mine.py"
    function.write_text("def keep(row):\n    return True\n")
    values: dict[str, Any] = {
        **{"min_margin": 0.5, "max_length_ratio": 2, "refusals": True, "patterns": {"mine": ["x"]}},
        **{"max_repetition": 0.5, "languages": ["en"], "functions": {"own": f"{function}:keep"}},
        **{"min_tokens": 1, "max_tokens": 9, "not_in": ["other"]},
    }
    in_order = [{"patterns": "mine", "functions": "own"}.get(name, name) for name in Filters.model_fields]
    of_several = {"duplicates", "near_duplicates", "max_label_ratio"}
    names = [name for name, _ in row_filters(row_type, Filters.model_validate(values), TOOLS)]
    assert names == [name for name in in_order if name not in missing | of_several]


def test_no_filter_is_enabled_if_all_are_off() -> None:
    assert list(row_filters("preference", Filters.model_validate(OFF), TOOLS)) == []


@pytest.mark.parametrize("row_type", ["messages", "preference", "kto", "prompt"])
def test_empty_batches_pass_every_filter(row_type: RowType, tmp_path: Path) -> None:
    """Earlier filters may have removed all rows of a batch."""
    (tmp_path / "mine.py").write_text("def keep(row):\n    return True\n")
    on: dict[str, Any] = {"min_margin": 0.5, "max_length_ratio": 2, "refusals": True, "patterns": {"mine": ["x"]}}
    on |= {"languages": ["en"], "functions": {"own": f"{tmp_path}/mine.py:keep"}, "max_repetition": 0.1}
    on |= {"min_tokens": 1, "max_tokens": 9, "not_in": ["other"]}
    index = OverlapIndex({"b": [{"question": "-", "texts": ["one two three four five six seven eight nine", "short"]}]})
    for _, judge in row_filters(row_type, Filters.model_validate(on), Tools(WordCounter(), index)):
        assert judge([]) == []


# --- turns --------------------------------------------------------------------------------------


def test_empty() -> None:
    rows = [
        _chat("u:a", "a:b"),
        _chat("s:x", "u:a", "a:b"),
        _chat("u:a", "a: \n"),
        _chat("u:\u3000", "a:b"),
        _chat("s:", "u:a", "a:b"),
        _chat("a:b"),
        _chat("u:a"),
        _chat("u:a", "a:b", "u:c"),
    ]
    assert _reasons(rows, empty=True) == [
        *(None, None, "an empty turn", "an empty turn", "an empty turn", "no user turn"),
        *("the last turn has the role user, not assistant",) * 2,
    ]


def test_empty_checks_both_sides_of_a_pair() -> None:
    rows = [_pair("a", "b"), _pair("a", ""), _pair(" ", "b"), _pair("a", "b", prompt="\t")]
    assert _reasons(rows, "preference", empty=True) == [None, *["an empty turn"] * 3]
    user_chosen = _pair("a", "b") | {"chosen": _turns("u:a")}
    assert _reasons([user_chosen], "preference", empty=True) == ["the last turn has the role user, not assistant"]


def test_a_prompt_ends_with_the_user() -> None:
    rows: list[Row] = [{"prompt": _turns("u:a")}, {"prompt": _turns("u:a", "a:b")}, {"prompt": _turns("s:a")}]
    assert _reasons(rows, "prompt", empty=True) == [
        *(None, "the last turn has the role assistant, not user", "no user turn")
    ]


def test_a_kto_row_needs_an_assistant_completion() -> None:
    rows = [
        {"prompt": _turns("u:a"), "completion": _turns("a:b"), "label": False},
        {"prompt": _turns("u:a"), "completion": _turns("u:b"), "label": True},
        {"prompt": [], "completion": _turns("a:b"), "label": True},
    ]
    assert _reasons(rows, "kto", empty=True) == [
        *(None, "the last turn has the role user, not assistant", "no user turn")
    ]


def test_roles() -> None:
    rows = [
        _chat("u:a", "a:b"),
        _chat("s:x", "u:a", "a:b", "u:c", "a:d"),
        _chat("u:a", "u:b", "a:c"),
        _chat("s:x", "a:b"),
        _chat("s:x", "s:y", "u:a", "a:b"),
        _chat("u:a", "s:x", "a:b"),
        _chat("s:x", "u:a", "a:b", "a:c"),
        _chat("a:b", "u:a"),
    ]
    assert _reasons(rows, roles=True) == [
        *(None, None),
        "turn 2 has the role user, not assistant",
        "turn 2 has the role assistant, not user",
        "turn 2 has the role system, not user",
        "turn 2 has the role system, not assistant",
        "turn 4 has the role assistant, not user",
        "turn 1 has the role assistant, not user",
    ]


def test_roles_of_a_pair_and_of_a_prompt() -> None:
    after_answer = _pair("a", "b") | {"prompt": _turns("u:q", "a:x")}
    assert _reasons([_pair("a", "b"), after_answer], "preference", roles=True) == [
        *(None, "turn 3 has the role assistant, not user")
    ]
    assert _reasons([{"prompt": _turns("s:x", "u:q", "a:x", "u:y")}], "prompt", roles=True) == [None]


def test_control_tokens() -> None:
    rows = [
        _chat("u:a", "a:b"),
        _chat("u:a<|im_end|>", "a:b"),
        _chat("u:a", "a:<|im_start|>user"),
        _chat("s:<|im_end|>", "u:a", "a:b"),
        _chat("u:<|im|>", "a:im_start"),
    ]
    assert _reasons(rows, control_tokens=True) == [
        None,
        "<|im_end|> in the text of a user turn",
        "<|im_start|> in the text of a assistant turn",
        "<|im_end|> in the text of a system turn",
        None,
    ]
    assert _reasons([_pair("a", "<|im_end|>")], "preference", control_tokens=True) == [
        "<|im_end|> in the text of a assistant turn"
    ]


# --- pairs --------------------------------------------------------------------------------------


def test_equal_answers() -> None:
    rows = [_pair("a", "b"), _pair("a", " a\n"), _pair("a", "A")]
    assert _reasons(rows, "preference", equal_answers=True) == [None, "the two answers are the same", None]


SCORED = [
    *(_pair("a", "b", 5.0, 4.0), _pair("a", "b", 5.0, 4.5), _pair("a", "b", 4.0, 5.0)),
    *(_pair("a", "b", 5.0, None), _pair("a", "b", None, 5.0), _pair("a", "b")),
]


def test_min_margin() -> None:
    scoreless = ["no scores"] * 3
    assert _reasons(SCORED, "preference", min_margin=1.0) == [None, "a margin of 0.5", "a margin of -1", *scoreless]
    assert _reasons(SCORED, "preference", min_margin=0.0) == [None, None, "a margin of -1", *scoreless]
    assert _reasons(SCORED, "preference", min_margin=-1.0) == [None, None, None, *scoreless]


def test_score_margin() -> None:
    assert [score_margin(row) for row in SCORED] == [1.0, 0.5, -1.0, None, None, None]
    assert score_margin(_chat("u:a", "a:b")) is None


def test_max_length_ratio() -> None:
    rows = [
        *(_pair("four", "eight888"), _pair("four", "eight8889"), _pair("eight8889", "four")),
        *(_pair("  four\n\n\n", "eight888"), _pair("a", ""), _pair("", "")),
    ]
    assert _reasons(rows, "preference", max_length_ratio=2) == [
        *(None, "9 and 4 characters", "9 and 4 characters", None, "1 and 0 characters", None)
    ]


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I do not have feelings.",
        "Well, as an artificial intelligence I cannot taste.",
        "as a large language model, I was trained on text",
        "I'm just an AI, but here is a poem.",
        "I am a language model.",
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, but I can’t help with that request.",
        "Sorry, I cannot do this.",
        "I apologize, but I won't write that.",
        "I apologise, I am unable to answer.",
        "I'm sorry, but I'm unable to do that.",
        "I am sorry, I’m not able to see pictures.",
        "I cannot fulfil this request.",
        "I can't provide medical advice.",
        "  \n“I cannot help you with this.”",
        "I won’t comply.",
        "My knowledge cutoff is in 2021.",
        "That was not in my training data.",
        "抱歉，我无法回答这个问题。",
        "很抱歉,我不能提供帮助。",
        "对不起，我不能这样做。",
        "作为一个人工智能，我没有感情。",
        "作为AI助手，我……",
        "作为一名语言模型",
    ],
)
def test_refusals_are_removed(text: str) -> None:
    (reason,) = _reasons([_answer(text)], refusals=True)
    assert reason is not None
    assert reason.strip("'") in text.replace("’", "'"), "the reason quotes the match"
    assert _reasons([_answer(text.upper())], refusals=True) != [None], "case does not matter"


@pytest.mark.parametrize(
    "text",
    [
        "I can't wait to show you: 2 + 2 = 4.",
        "You can say: I am sorry, but I will be late.",
        "Sorry seems to be the hardest word.",
        "I am sorry to hear that. Here is what you can do.",
        "An AI is a program.",
        'He said, "I cannot help it", and left.',
        "I cannot recommend this book enough.",
        "Aside from that, said the aide, all is well.",
        "她说抱歉来晚了。",
        "人工智能是计算机科学的一个分支。",
        "",
    ],
)
def test_other_answers_stay(text: str) -> None:
    assert _reasons([_answer(text)], refusals=True) == [None]


def test_only_the_trained_answer_is_checked_for_refusals() -> None:
    no, yes = "I'm sorry, but I can't help.", "Here it is."
    assert _reasons([_pair(yes, no), _pair(no, yes)], "preference", refusals=True) == [
        *(None, "'I'm sorry, but I can't'")
    ]
    rows = [_chat(f"u:{no}", f"a:{yes}"), _chat("u:a", f"a:{no}", "u:b", f"a:{yes}")]
    assert _reasons(rows, refusals=True) == [None, None]


def test_refusals_as_documented() -> None:
    """Texts are matched with straight apostrophes, so a pattern with a typographic one would never match."""
    assert not any("’" in pattern for pattern in REFUSALS)


def test_patterns() -> None:
    rows = [_answer("see HTTPS://example.org"), _answer("it’s"), _answer("nothing"), _chat("u:https://", "a:x")]
    assert _reasons(rows, patterns={"links": ["nowhere", "https?://"]}) == ["'HTTPS://'", None, None, None]
    assert _reasons(rows, patterns={"apostrophes": ["it's"]}) == [None, "'it's'", None, None]
    (reason,) = _reasons([_answer("x" * 500)], patterns={"long": ["x+"]})
    assert reason == f"'{'x' * 80}'"


def test_each_pattern_is_its_own_step() -> None:
    filters = Filters.model_validate(OFF | {"patterns": {"one": ["1"], "two": ["2"]}})
    judged = {name: judge([Candidate(_answer("2"))]) for name, judge in row_filters("messages", filters, TOOLS)}
    assert judged == {"one": [None], "two": ["'2'"]}


def test_max_repetition() -> None:
    """Twelve words twice give twenty 5-word sequences, and the eight within each half occur twice."""
    words = " ".join(f"w{i}" for i in range(12))
    rows = [_answer(f"{words} {words}"), _answer(words), _answer("the same " * 30), _answer("a b c d"), _answer("")]
    assert _reasons(rows, max_repetition=0.5) == [
        "80% of its 5-word sequences are repeated",
        None,
        "100% of its 5-word sequences are repeated",
        None,
        None,
    ]
    assert _reasons(rows[:3], max_repetition=0.8) == [None, None, "100% of its 5-word sequences are repeated"]


def test_repetition_is_found_in_any_case_and_script() -> None:
    rows = [_answer("One two, three four five! " + "ONE TWO THREE FOUR FIVE."), _answer("我不知道怎么办。" * 4)]
    reasons = _reasons(rows, max_repetition=0.3)
    assert reasons == ["33% of its 5-word sequences are repeated", "100% of its 5-word sequences are repeated"]


def test_the_chosen_answer_is_checked_for_repetition() -> None:
    rows = [_pair("the same " * 30, "a b c d"), _pair("a b c d", "the same " * 30)]
    assert _reasons(rows, "preference", max_repetition=0.5) == ["100% of its 5-word sequences are repeated", None]


# --- language -----------------------------------------------------------------------------------

ENGLISH = "The weather is nice today, and we are going to the park with our friends."
GERMAN = "Das Wetter ist heute schön, und wir gehen mit unseren Freunden in den Park."
CHINESE = "今天天气很好，我们和朋友们一起去公园散步。"


def test_languages() -> None:
    rows = [_chat(f"u:{text}", f"a:{text}") for text in (ENGLISH, GERMAN, CHINESE)]
    assert _reasons(rows, languages=["en"]) == [None, "language de", "language zh"]
    assert _reasons(rows, languages=["en", "zh"]) == [None, "language de", None]


def test_the_system_turn_has_no_language() -> None:
    assert _reasons([_chat(f"s:{ENGLISH * 3}", f"u:{GERMAN}", f"a:{GERMAN}")], languages=["de"]) == [None]


def test_the_language_is_detected_from_the_beginning_of_a_row() -> None:
    candidate = Candidate(_chat(f"u:{GERMAN * 10}", f"a:{ENGLISH * 100}"))
    find_languages([candidate])
    assert candidate.language == "de"


def test_an_unknown_language_gives_one_line() -> None:
    with pytest.raises(UserError) as refused:
        _reasons([_answer("x")], languages=["en", "english"])
    assert str(refused.value).startswith("filters.languages: unknown language 'english'")
    assert "\n" not in str(refused.value)


# --- tokens -------------------------------------------------------------------------------------


def test_bounds_of_tokens_are_inclusive() -> None:
    rows = [_chat("u:one", "a:two"), _chat("u:one", "a:two three"), _chat("u:one", "a:two three four")]
    assert _reasons(rows, min_tokens=3) == ["2 tokens", None, None]
    assert _reasons(rows, max_tokens=3) == [None, None, "4 tokens"]


def test_the_longer_side_of_a_pair_counts() -> None:
    rows = [_pair("a", "a b c"), _pair("a b c", "a"), _pair("a b", "a")]
    assert _reasons(rows, "preference", max_tokens=3) == ["4 tokens", "4 tokens", None]


def test_tokens_are_counted_once() -> None:
    candidates = [Candidate(_chat("u:a", "a:b c")), Candidate(_pair("a", "b c d"))]
    counter = WordCounter()
    for _ in range(2):
        count_tokens(candidates, counter)
        assert [candidate.tokens for candidate in candidates] == [3, 4]
        assert counter.counted == 3


WORDS = "the quick brown fox jumps over the lazy dog"


def test_only_rows_near_a_bound_are_counted(tiny_model: Path) -> None:
    counter = TokenCounter(tiny_model)
    rows = [_answer(WORDS * 10), _answer("x"), _answer("中")]
    tools = Tools(counter, OverlapIndex({}))
    (expected,) = counter.count([rows[0]["messages"]])
    assert _reasons(rows, tools=tools, max_tokens=120) == [f"{expected} tokens", None, None]
    assert _reasons(rows, tools=tools, min_tokens=1) == [None] * 3


@pytest.mark.parametrize("turned", [False, True])
def test_tokens_of_both_sides_of_a_pair_are_checked(tiny_model: Path, turned: bool) -> None:
    """One answer is certainly short enough and the other is too long, in both orders."""
    tools = Tools(TokenCounter(tiny_model), OverlapIndex({}))
    sides = ("yes", WORDS * 10)
    row = _pair(*(reversed(sides) if turned else sides))
    # One token for each byte, and two marks for each turn.
    tokens = len("user\nq\n") + len(f"assistant\n{WORDS * 10}\n") + 4
    assert _reasons([row], "preference", tools, max_tokens=120) == [f"{tokens} tokens"]
    assert _reasons([row], "preference", tools, min_tokens=tokens) == [None]
    assert _reasons([row], "preference", tools, min_tokens=tokens + 1) == [f"{tokens} tokens"]


# --- keys ---------------------------------------------------------------------------------------


def _keyed(row: Row) -> Candidate:
    candidate = Candidate(row)
    normalise_turns([candidate])
    return candidate


def test_other_turn_boundaries_give_other_keys() -> None:
    texts = [_chat("u:a b", "a:c"), _chat("u:a", "a:b c"), _chat("u:a", "a:b", "u:c", "a:d")]
    assert len({text_key(_keyed(row)) for row in texts}) == 3
    same = [_chat("u:ﬁne", "a: X\n"), _chat("u:Fine", "a:x")]
    assert len({text_key(_keyed(row)) for row in same}) == 1


def test_the_prompt_consists_of_the_user_turns() -> None:
    rows = [
        _chat("u:One", "a:x", "u:two", "a:y"),
        _chat("s:system", "u:one", "a:other", "u:TWO ", "a:other"),
        {"prompt": _turns("u:one", "a:x", "u:two"), "chosen": _turns("a:y"), "rejected": _turns("a:z")},
        {"prompt": _turns("u:one", "a:x", "u:two"), "completion": _turns("a:y"), "label": True},
        {"prompt": _turns("u:one", "a:x", "u:two"), "answer": None},
    ]
    assert len({prompt_key(_keyed(row)) for row in rows}) == 1
    assert prompt_key(_keyed(_chat("u:one", "a:two"))) != prompt_key(_keyed(rows[0]))


def test_not_in() -> None:
    rows = [_chat("u:What is  2 + 2?", "a:4"), _chat("s:x", "u:what is 2 + 3?", "a:5")]
    taken = frozenset({prompt_key(_keyed(_chat("u:WHAT is 2 + 2?", "a:other")))})
    tools = Tools(WordCounter(), OverlapIndex({}), taken)
    assert _reasons(rows, tools=tools, not_in=["other"]) == ["another data set has the prompt", None]


# --- user functions -----------------------------------------------------------------------------


def _own(folder: Path, body: str) -> str:
    (folder / "mine.py").write_text(f"def judge(row):\n    {body}\n", encoding="utf-8")
    return f"{folder}/mine.py:judge"


def test_user_function(tmp_path: Path) -> None:
    path = _own(tmp_path, "return 'please' in row['messages'][0]['content'] or 'not polite'")
    rows = [_chat("u:please go", "a:b"), _chat("u:go", "a:b")]
    assert _reasons(rows, functions={"polite": path}) == [None, "not polite"]
    path = _own(tmp_path, "return row['source_index'] == 1")
    assert _reasons(rows, functions={"second": path}) == ["second returned False", None]


def test_a_user_function_receives_the_row_in_our_schema(tmp_path: Path) -> None:
    path = _own(tmp_path, "return ','.join(sorted(row))")
    assert _reasons([_pair("a", "b", 1.0, 0.5)], "preference", functions={"keys": path}) == [
        "chosen,prompt,rejected,score_chosen,score_rejected,source_index"
    ]


def test_a_user_function_cannot_change_the_row(tmp_path: Path) -> None:
    path = _own(tmp_path, "row['messages'].clear(); return True")
    row = _chat("u:please go", "a:b")
    assert _reasons([row], functions={"mine": path}) == [None]
    assert row == _chat("u:please go", "a:b")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("return row['mesages']", "failed on row 0: KeyError: 'mesages'"),
        ("1 / 0", "failed on row 0: ZeroDivisionError: division by zero"),
        ("pass", "returned NoneType; return True, False or a reason as text"),
        ("return 1", "returned int; return True, False or a reason as text"),
    ],
)
def test_a_failing_user_function_gives_one_line(tmp_path: Path, body: str, line: str) -> None:
    path = _own(tmp_path, body)
    with pytest.raises(UserError) as refused:
        _reasons([_answer("x")], functions={"own": path})
    assert str(refused.value) == f"filters.functions.own: {path} {line}"


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        (None, "mine.py:judge", "file mine.py not found"),
        ("def jugde(row):\n    return True\n", "mine.py:judge", "mine.py has no function judge; did you mean 'jugde'?"),
        ("judge = 1\n", "mine.py:judge", "mine.py has no function judge; did you mean 'judge'?"),
        ("import nowhere_at_all\n", "mine.py:judge", "mine.py cannot be loaded: ModuleNotFoundError: No module named"),
        ("def judge(row)\n", "mine.py:judge", "mine.py cannot be loaded: SyntaxError: expected ':'"),
    ],
)
def test_a_user_function_that_cannot_be_loaded_gives_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, path: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("mine.py").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_function(path, "filters.functions.own")
    assert str(refused.value).startswith(f"filters.functions.own: {line}")
    assert "\n" not in str(refused.value)
