"""Rejected answers are sampled from the model and verified as wrong."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.common.config import RejectionsDataset
from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.manifest import find_model
from scripts.common.torch_setup import prepare_torch
from scripts.common.verifiers import make_verifier
from scripts.data.sample_rejections import make_pairs, sample_answers
from scripts.data.schemas import SCHEMAS, SOURCE_SCHEMAS, Row
from tests.common.running import call_main

is_right = make_verifier("pattern", r"-?\d+")


def _row(index: int, answer: str | None = "3") -> dict[str, Any]:
    turns = [{"role": "user", "content": f"{index} + 1?"}, {"role": "assistant", "content": f"Answer: {answer}"}]
    return {"source_index": index, "messages": turns, "answer": answer}


def test_one_pair_for_each_wrong_answer() -> None:
    rows = [_row(0), _row(1), _row(2)]
    pairs = make_pairs(rows, [["3", "4"], ["3", "3"], ["5", "none"]], is_right)
    assert [pair["rejected"][0]["content"] for pair in pairs] == ["4", "5", "none"]
    assert [pair["prompt"] for pair in pairs] == [rows[i]["messages"][:1] for i in (0, 2, 2)]
    assert all(pair["chosen"] == [{"role": "assistant", "content": "Answer: 3"}] for pair in pairs)


SOURCE = {"kind": "rejections", "model": "base", "dataset": "sums", "samples": 2, "max_new_tokens": 4, "batch_size": 3}


def _write_questions(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS["messages"]), folder / name)
    return folder / name


def _options(model: Path, questions: list[Path]) -> dict[str, Any]:
    made = {"output": "pairs.parquet", "manifest": "pairs.json"}
    given = {"dtype": "float32", "seed": 5, "cpus": 1, "model": model, "questions": questions}
    return {"name": "pairs", "config": SOURCE} | given | made


@pytest.mark.slow
def test_script_with_a_real_model(tmp_path: Path, tiny_model: Path) -> None:
    rows = [_row(i) for i in range(5)]
    files = [
        _write_questions(tmp_path, "train.parquet", rows[::2]),
        _write_questions(tmp_path, "validation.parquet", rows[1::2]),
    ]
    call_main("data.sample_rejections", tmp_path, **_options(tiny_model, files))
    table = pq.read_table(tmp_path / "pairs.parquet")
    assert table.schema.equals(SOURCE_SCHEMAS["preference"]), "the filters must be able to read them"
    pairs = table.to_pylist()
    facts = read_json(tmp_path / "pairs.json")["facts"]
    assert (facts["questions"], facts["answers"]) == (5, 10)
    assert facts["right"] + facts["rows"] == 10 and facts["rows"] == len(pairs) > 0
    assert facts["malformed"] == 0
    for i, pair in enumerate(pairs):
        assert not is_right(pair["rejected"][0]["content"], "3")
        assert (pair["source_index"], pair["part"], pair["problem"], pair["balance"]) == (i, "", None, None)

    # The same seed gives the same answers again. Questions are in the order of their source.
    prepare_torch(5, 1)
    tokenizer = AutoTokenizer.from_pretrained(find_model(tiny_model), padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(find_model(tiny_model), dtype="float32").eval()
    source = RejectionsDataset.model_validate(SOURCE)
    answers = sample_answers(model, tokenizer, [row["messages"][:-1] for row in rows], source, "pairs")
    assert [len(texts) for texts in answers] == [2] * 5
    assert make_pairs(rows, answers, is_right) == [_answers(pair) for pair in pairs]


def _answers(pair: Row) -> Row:
    return {name: pair[name] for name in ("prompt", "chosen", "rejected")}


def test_questions_without_answers_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    questions = _write_questions(tmp_path, "train.parquet", [_row(0), _row(1, None)])
    with pytest.raises(UserError) as caught:
        call_main("data.sample_rejections", tmp_path, **_options(tiny_model, [questions]))
    assert str(caught.value) == ("datasets.pairs.source.dataset: 'sums' has rows without an `answer` to verify against")
    assert not (tmp_path / "pairs.parquet").exists()
