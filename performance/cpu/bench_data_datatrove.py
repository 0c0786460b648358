"""datatrove's MinHash on the rows of `bench_data.py`, with the same word sequences and the same bands.

It needs a separate environment: `pip install datatrove "xxhash<4" orjson regex nltk spacy tokenizers`.
`python -m performance.cpu.bench_data_datatrove ROWS FOLDER`
"""

import shutil
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig

BANDS, NUMBERS = 16, 8
"""The values that `scripts.data.near_duplicates` chooses for a similarity of 0.8 and 128 numbers."""


def main() -> None:
    rows, folder = map(Path, sys.argv[1:3])
    shutil.rmtree(folder, ignore_errors=True)
    config = MinhashConfig(
        n_grams=5, num_buckets=BANDS, hashes_per_bucket=NUMBERS, hash_config=HashConfig(precision=64)
    )
    reader = JsonlReader(str(rows.parent), glob_pattern=rows.name, adapter=adapt)
    signatures, buckets, removed = (str(folder / name) for name in ("signatures", "buckets", "removed"))
    steps = [
        [reader, MinhashDedupSignature(output_folder=signatures, config=config)],
        [MinhashDedupBuckets(input_folder=signatures, output_folder=buckets, config=config)],
        [MinhashDedupCluster(input_folder=buckets, output_folder=removed, config=config)],
        [reader, MinhashDedupFilter(input_folder=removed), JsonlWriter(str(folder / "kept"), compression=None)],
    ]
    for number, pipeline in enumerate(steps):
        tasks = BANDS if number == 1 else 1
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(folder / f"log{number}")).run()
    kept = sum(1 for path in (folder / "kept").iterdir() for _ in path.open("rb"))
    print(f"datatrove: {kept} rows left")


def adapt(_reader: object, row: dict[str, list[dict[str, str]]], path: str, number: int | str) -> dict[str, object]:
    """A row in datatrove's form: a text and an id."""
    text = " ".join(turn["content"] for turn in row["messages"])
    return {"text": text, "id": f"{path}/{number}", "media": [], "metadata": {}}


if __name__ == "__main__":
    main()
