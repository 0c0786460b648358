"""Download the questions of a benchmark, so that compute jobs need no network."""

import json
import shutil
from pathlib import Path

from scripts.common.console import make_parser, run_script, say
from scripts.common.files import hash_file, write_json, write_json_lines
from scripts.common.manifest import describe
from scripts.common.records import BenchmarkFacts
from scripts.evaluate.benchmark_mirror import fetch_questions


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the benchmark in the configuration")
    parser.add_argument("--config", required=True, help="its `task`, `source` and `unsafe_code`, as JSON")
    parser.add_argument("--tasks", type=Path, required=True, help="folder with our own task files")
    parser.add_argument("--questions", type=Path, required=True, help="questions to write, JSON lines")
    parser.add_argument("--mirror", type=Path, required=True, help="folder to write, a local mirror of the hub")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to write")
    options = parser.parse_args()
    config = json.loads(options.config)

    shutil.rmtree(options.mirror, ignore_errors=True)
    options.mirror.mkdir(parents=True)
    questions, found = fetch_questions(options.name, config, options.tasks, options.mirror)
    write_json_lines(options.questions, questions)
    facts: BenchmarkFacts = {
        **found,
        "questions": len(questions),
        "questions_sha256": hash_file(options.questions),
    }
    say(f"download_benchmark {options.name}: {len(questions)} questions from {facts['origin']}")
    manifest = describe(artefact="benchmark", name=options.name, config=config, inputs={}, facts=facts)
    write_json(options.manifest, manifest)


if __name__ == "__main__":
    run_script(main)
