"""Both engines give the same answers, in batches that fit into memory."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from scripts.common.errors import UserError
from scripts.common.manifest import find_model
from scripts.evaluate.engines import ContinuousLM, SharingLM, bounded_memory

WORDS = ["the", "sum", "of", "three", "and", "four", "is", "seven", "and", "not", "eight", "as", "some", "say"]

Build = Callable[..., SharingLM]


@pytest.fixture
def build(tiny_model: Path) -> Build:
    def build(engine: type[SharingLM] = SharingLM, **given: Any) -> SharingLM:
        model = str(find_model(tiny_model))
        return engine(name="mine", label="test", pretrained=model, dtype="float32", device="cpu", **given)

    return build


def _request(kind: str, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def _prompts(new_tokens: int, until: list[str]) -> list[Instance]:
    settings = {"until": until, "max_gen_toks": new_tokens}
    return [_request("generate_until", " ".join(WORDS[: 1 + i % 7]), settings) for i in range(11)]


def _likelihoods(count: int, length: int) -> list[Instance]:
    return [_request("loglikelihood", (f"{i} " + "say " * length)[:length], " yes") for i in range(count)]


def _held_bytes() -> int:
    """Data memory of this process, which RLIMIT_DATA limits."""
    found = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("until", [[], ["e"]])
def test_continuous_batching_gives_the_same_answers(build: Build, until: list[str]) -> None:
    """Eleven answers, three at once, twice. Text after a stop sequence is cut."""
    expected = build(at_once=4).generate_until(_prompts(24, until))
    assert len(set(expected)) > 3, "different prompts must have different answers"
    for _ in range(2):
        continuous = build(ContinuousLM, at_once=3)
        assert continuous.generate_until(_prompts(24, until)) == expected
        assert continuous.done == 11


def test_the_seed_determines_samples(build: Build) -> None:
    settings = {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 1.5}
    requests = [_request("generate_until", word, settings) for word in WORDS[:4]]
    greedy = build(at_once=4).generate_until(_prompts(12, [])[:4])
    first, second = (build(ContinuousLM, at_once=2).generate_until(requests) for _ in range(2))
    assert first == second != greedy


def test_answers_may_be_longer_than_the_default_of_lm_eval(build: Build) -> None:
    """lm-eval's default of 256 tokens is too short for worked answers."""
    request = _request("generate_until", "the sum of", {"until": [], "do_sample": False})
    assert build(at_once=1).max_gen_toks == build(ContinuousLM, at_once=1).max_gen_toks == 1024
    assert len(build(at_once=1).generate_until([request])[0].encode()) > 256


def test_a_batch_that_does_not_fit_is_halved(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    requests = _likelihoods(256, 600)
    # Kernels are created at their first use. If that failed here, it could fail in all later tests.
    build(at_once=8).loglikelihood(requests[:8])
    model = build(at_once=256, halves=True)
    with bounded_memory(_held_bytes() + 200_000_000):
        found = model.loglikelihood(requests)
    assert model.at_once in (16, 32, 64)
    lines = capfd.readouterr().err.splitlines()
    assert "test: 256 items at once do not fit into memory; continuing with 128" in lines
    assert found == build(at_once=model.at_once).loglikelihood(requests)


def test_a_batch_is_halved_if_onednn_is_out_of_memory(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's message differs from that of the allocators."""
    model, call = build(at_once=4, halves=True), SharingLM._model_call

    def refuse(self: SharingLM, inps: Any, *args: Any, **kwargs: Any) -> Any:
        if inps.shape[0] > 2:
            raise RuntimeError("could not create a primitive")
        return call(self, inps, *args, **kwargs)

    monkeypatch.setattr(SharingLM, "_model_call", refuse)
    assert len(model.loglikelihood(_likelihoods(4, 20))) == 4 and model.at_once == 2


def test_a_configured_batch_size_is_never_changed(build: Build) -> None:
    model = build(at_once=256)
    with bounded_memory(_held_bytes() + 1_000_000), pytest.raises(UserError) as caught:
        model.loglikelihood(_likelihoods(256, 600))
    words = "256 items at once do not fit into memory; lower it, or set it to auto"
    assert str(caught.value) == f"benchmarks.mine.batch_size: {words}"


@pytest.mark.parametrize("engine", [SharingLM, ContinuousLM])
def test_answers_cut_at_the_length_limit_are_known(build: Build, engine: type[SharingLM]) -> None:
    """An answer with a stop sequence or an end of turn is complete, even if its batch ran to the limit."""
    prompts, texts = _prompts(24, ["e"]), build(at_once=4).generate_until(_prompts(24, []))
    stopped = build(engine, at_once=4)
    stopped.generate_until(prompts)
    expected = {prompt.args[0]: "e" not in text for prompt, text in zip(prompts, texts, strict=True)}
    assert stopped.cut_answers.by_prompt == expected and {*expected.values()} == {False, True}

    ended = build(engine, at_once=4)
    ended.model.generation_config.eos_token_id = ended.tok_encode("e")[0]
    ended.generate_until(_prompts(24, []))
    assert ended.cut_answers.by_prompt == expected

    free = build(engine, at_once=4)
    free.generate_until(_prompts(24, []))
    assert {*free.cut_answers.by_prompt.values()} == {True}
