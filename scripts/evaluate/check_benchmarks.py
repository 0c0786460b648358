"""Check for each benchmark whether its jobs would run here without internet access, and report what is missing.

Like the jobs, it runs with HF_HUB_OFFLINE=1 and HF_DATASETS_OFFLINE=1, so it finds what they will find.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.common.config import Benchmark
from scripts.common.console import make_parser, run_script, say
from scripts.common.environment import require_vllm
from scripts.common.errors import UserError
from scripts.evaluate.benchmark_mirror import fetch_questions
from scripts.evaluate.tasks import check_protocol, enter_mirror, load_tasks


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--benchmarks", type=json.loads, required=True, help="section `benchmarks`, as JSON")
    parser.add_argument("--tasks", type=Path, required=True, help="folder with our own task files")
    options = parser.parse_args()

    problems = []
    for name, section in options.benchmarks.items():
        with TemporaryDirectory() as folder:
            try:
                questions, facts = fetch_questions(name, section, options.tasks, Path(folder))
                benchmark = Benchmark.model_validate(section)
                with enter_mirror(Path(folder), benchmark.unsafe_code):
                    tasks = list(load_tasks(benchmark.task, options.tasks.resolve()))
                    check_protocol(tasks, benchmark, name)
                    for protocol in benchmark.protocols:
                        check_protocol(tasks, benchmark.under(protocol), f"{name}.protocols.{protocol}")
                if benchmark.engine == "vllm":
                    require_vllm(name)
            except UserError as error:
                problems.append(str(error))
                say(f"{name}: would not run")
            else:
                say(f"{name}: would run; {len(questions)} questions from {facts['origin']}")
    if problems:
        raise UserError("\n".join(problems))


if __name__ == "__main__":
    run_script(main)
