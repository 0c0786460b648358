"""Answers to held-out rows, and how likely the model finds the rows' own answers."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.config import Responses
from scripts.common.files import read_json, read_json_lines, write_json
from scripts.common.manifest import find_model
from scripts.common.records import Turns
from scripts.data.schemas import SCHEMAS
from scripts.evaluate.generate_responses import answer
from tests.common.running import call_main, run_script


def test_every_stop_token_ends_an_answer(tiny_model: Path) -> None:
    """A base model ends its text with another token than the end of turn."""
    folder = find_model(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    config = Responses(rows=1, max_new_tokens=3, batch_size=1)
    prompts: list[Turns] = [[{"role": "user", "content": "say"}]]
    ((_, is_cut),) = answer(model, tokenizer, prompts, config, "test")
    assert is_cut
    asked = tokenizer.apply_chat_template(prompts[0], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    first = int(model.generate(**asked, do_sample=False, max_new_tokens=1)[0, -1])
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, first]
    ((_, is_cut),) = answer(model, tokenizer, prompts, config, "test")
    assert not is_cut


@pytest.fixture(scope="module")
def listening_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a model whose answer depends on the prompt.

    With random weights of the usual size, a model only repeats the last token of the prompt. With weights 16 times as
    large, it attends to all of it.
    """
    manifest = tmp_path_factory.mktemp("listening") / "manifest.json"
    model = AutoModelForCausalLM.from_pretrained(find_model(tiny_model), dtype="float32")
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(16 if weights.ndim == 2 else 1)
    model.save_pretrained(find_model(manifest))
    AutoTokenizer.from_pretrained(find_model(tiny_model)).save_pretrained(find_model(manifest))
    write_json(manifest, {"name": "listening"})
    return manifest


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.usefixtures("exact_products")
def test_answers_do_not_depend_on_the_batch(listening_model: Path, batch_size: int) -> None:
    """Prompts are sorted by length and padded on the left."""
    folder = find_model(listening_model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    prompts = [_turns("a longer question"), _turns("say"), _turns("one", "two", "three"), _turns("say it"), _turns("?")]
    config = Responses(rows=5, max_new_tokens=6, batch_size=batch_size)
    alone = []
    for prompt in prompts:
        asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            written = model.generate(**asked, do_sample=False, max_new_tokens=6)[0, asked["input_ids"].shape[1] :]
        alone.append((tokenizer.decode(written, skip_special_tokens=True), tokenizer.eos_token_id not in written))
    assert len(set(alone)) == 5
    assert answer(model, tokenizer, prompts, config, "test") == alone


def test_only_the_last_turn_of_a_conversation_is_answered(tmp_path: Path, listening_model: Path) -> None:
    """All turns before it are the prompt. The likelihood covers all turns of the assistant. A token is a byte here."""
    conversations = [_turns("say one", "one", "and now?", "two!"), _turns("say one", "good day.")]
    rows = [{"source_index": i, "messages": turns, "answer": None} for i, turns in enumerate(conversations)]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS["messages"]), tmp_path / "rows.parquet")
    made = {"output": "answers.jsonl", "manifest": "manifest.json"}
    given = {"dataset": "talk", "rows": "rows.parquet", "dtype": "float32", "cpus": 1, "model": listening_model}
    config = {"rows": 6, "max_new_tokens": 4, "batch_size": 2}
    call_main("evaluate.generate_responses", tmp_path, config=config, model_name="base", **given, **made)
    written = read_json_lines(tmp_path / "answers.jsonl")
    assert [row["prompt"] for row in written] == ["say one\none\nand now?", "say one"]
    assert [row["target"] for row in written] == ["two!", "good day."]
    assert [row["tokens"] for row in written] == [4 + 5, 10], "each answer has an end of turn"

    folder = find_model(listening_model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    prompts = [conversations[0][:-1], conversations[0][:1]]
    (long, _), (short, _) = answer(model, tokenizer, prompts, Responses.model_validate(config), "test")
    assert [row["answer"] for row in written] == [long, short] and long != short
    assert 0 < len(long) <= 4
    assert read_json(tmp_path / "manifest.json")["config"] == config | {"dtype": "float32"}


def _turns(*texts: str) -> Turns:
    return [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(texts)]


@pytest.mark.slow
def test_scripts(tmp_path: Path, tiny_model: Path) -> None:
    """Answers and losses are the same as for each row alone, and score_responses reads them."""
    texts = ["yes", "今天很好。", "a longer answer than the others", "no", "4", "fine", "beyond the sixth"]
    conversations = [
        [{"role": "user", "content": f"say {place}"}, {"role": "assistant", "content": text}]
        for place, text in enumerate(texts)
    ]
    pq.write_table(
        pa.Table.from_pylist(
            [{"source_index": i, "messages": turns, "answer": None} for i, turns in enumerate(conversations)],
            schema=SCHEMAS["messages"],
        ),
        tmp_path / "rows.parquet",
    )
    config = {"rows": 6, "max_new_tokens": 5, "batch_size": 4}
    made = {"output": "answers.jsonl", "manifest": "answers.manifest.json"}
    given = {"dataset": "sums", "rows": "rows.parquet", "dtype": "float32", "cpus": 1, "model": tiny_model}
    run = run_script("evaluate.generate_responses", tmp_path, config=config, model_name="base", **given, **made)
    assert run.returncode == 0, run.stderr
    answers = read_json_lines(tmp_path / "answers.jsonl")
    assert len(answers) == len({answered["key"] for answered in answers}) == 6

    folder = find_model(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for turns, answered in zip(conversations[:6], answers, strict=True):
        asked = tokenizer.apply_chat_template(
            turns[:-1], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            written = model.generate(**asked, do_sample=False, max_new_tokens=5)[0, asked["input_ids"].shape[1] :]
        assert answered["answer"] == tokenizer.decode(written, skip_special_tokens=True)
        assert answered["target"] == turns[-1]["content"] and answered["is_cut"] == (
            tokenizer.eos_token_id not in written
        )
        whole = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
        tokens, mask = whole["input_ids"], whole["assistant_masks"]
        with torch.no_grad():
            chances = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        alone = sum(float(chances[i - 1, tokens[i]]) for i in range(1, len(tokens)) if mask[i])
        assert answered["log_probability"] == pytest.approx(alone, abs=0.1) and answered["tokens"] == sum(mask)

    call_main(
        "evaluate.score_responses",
        tmp_path,
        dataset="sums",
        model_name="base",
        responses="answers.jsonl",
        manifest="answers.manifest.json",
        scores="sums.json",
        items="sums.items.jsonl",
    )
    written = read_json(tmp_path / "sums.json")
    others = {other["metric"]: other for other in written["others"]}
    loss = -sum(answer["log_probability"] for answer in answers) / sum(answer["tokens"] for answer in answers)
    assert others["loss"]["score"] == pytest.approx(loss)
    assert others["loss"]["ci_low"] <= loss <= others["loss"]["ci_high"]
    assert {"rouge1", "rouge2", "bleu4", "length_ratio", "length_correlation", "perplexity", "cut_answers"} <= set(
        others
    )
    assert (written["metric"], written["n"]) == ("rougeL", 6)
    assert written["protocol"]["max_new_tokens"] == 5 and written["protocol"]["chat_template_sha256"]
