"""The steps of the data room as a plain script: row by row through `datasets`, with the same libraries and rules.

`bench_data.py` compares the pipeline with it.
`python -m performance.cpu.bench_data_plain ROWS MODEL QUESTIONS FILTERS`
"""

import json
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import xxhash
from datasets import load_dataset
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from rensa import RMinHash, RMinHashLSH
from transformers import AutoTokenizer

from scripts.common.files import read_json_lines
from scripts.common.manifest import find_model
from scripts.data.filters import REFUSALS

WORD = re.compile(r"\w+")


def main() -> None:
    rows, model, questions = map(Path, sys.argv[1:4])
    filters: dict[str, Any] = json.loads(sys.argv[4])
    tokenizer = AutoTokenizer.from_pretrained(find_model(model))
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    refusals = [re.compile(pattern, re.IGNORECASE) for pattern in REFUSALS]
    asked = {gram for item in read_json_lines(questions) for text in item["texts"] for gram in grams(text, 13)}
    seen: set[str] = set()
    index = RMinHashLSH(filters["near_duplicates"], 128, 16)

    def is_whole(row: dict[str, Any]) -> bool:
        turns = row["messages"]
        roles = [turn["role"] for turn in turns]
        return all(turn["content"].strip() for turn in turns) and roles == ["user", "assistant"] * (len(roles) // 2)

    def is_first(row: dict[str, Any]) -> bool:
        key = xxhash.xxh3_128_hexdigest(normalise("\n".join(turn["content"] for turn in row["messages"])).encode())
        new = key not in seen
        seen.add(key)
        return new

    def is_new(row: dict[str, Any], number: int) -> bool:
        signature = RMinHash(num_perm=128, seed=0)
        signature.update(grams(" ".join(turn["content"] for turn in row["messages"]), 5))
        if index.query(signature):
            return False
        index.insert(number, signature)
        return True

    data = load_dataset("json", data_files=str(rows), split="train", cache_dir=str(rows.parent / "plain"))
    data = data.map(lambda row: {"messages": [{"role": t["role"], "content": t["content"]} for t in row["messages"]]})
    data = data.filter(is_whole)
    data = data.filter(lambda row: not any("<|im_" in turn["content"] for turn in row["messages"]))
    data = data.filter(lambda row: not any(p.search(row["messages"][-1]["content"]) for p in refusals))
    data = data.filter(lambda row: repetition(row["messages"][-1]["content"]) <= filters["max_repetition"])
    data = data.filter(lambda row: identifier.classify(text_of(row)[:1000])[0] in filters["languages"])
    data = data.map(lambda row: {"tokens": len(tokenizer.apply_chat_template(row["messages"])["input_ids"])})
    data = data.filter(lambda row: filters["min_tokens"] <= row["tokens"] <= filters["max_tokens"])
    data = data.filter(lambda row: not any(gram in asked for gram in grams(text_of(row), 13)))
    data = data.filter(is_first)
    data = data.filter(is_new, with_indices=True)
    data.to_parquet(str(rows.parent / "plain.parquet"))
    print(f"plain: {len(data)} rows left")


def text_of(row: dict[str, Any]) -> str:
    return "\n".join(turn["content"] for turn in row["messages"])


def normalise(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def grams(text: str, size: int) -> list[str]:
    words = WORD.findall(normalise(text))
    return [" ".join(words[i : i + size]) for i in range(len(words) - size + 1)]


def repetition(text: str) -> float:
    found = grams(text, 5)
    return sum(n for n in Counter(found).values() if n > 1) / len(found) if found else 0.0


if __name__ == "__main__":
    main()
