"""Compare the time of our benchmark jobs with lm-eval's command line, on a model of recipes/tour.yaml.

Needs a finished run of it: snakemake --cores 2 --configfile recipes/tour.yaml

Both score the same model on the same questions with the same batches. Each measurement is a complete process, and the
two take turns (ABAB). Our jobs are also measured as the tour runs them: two at once, with half of the threads each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from scripts.common.jobs import OFFLINE
from scripts.common.manifest import find_model
from scripts.common.paths import OWN_TASKS, REPOSITORY, RunPaths

START_UP = "start-up"
"""One question, answered with one token: the time that a job needs before it does any work."""
TWO_AT_ONCE = "all, two jobs at once"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="tour", help="name of a finished run of recipes/tour.yaml")
    parser.add_argument("--model", default="sft", help="model of the run to score")
    parser.add_argument("--rounds", type=int, default=2, help="number of measurements of each benchmark")
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1, help="number of compute threads")
    parser.add_argument("--only", nargs="*", help=f"benchmarks to measure, or `{START_UP}` (default: all)")
    options = parser.parse_args()
    options.paths = RunPaths(options.run, REPOSITORY)
    if not options.paths.model(options.model).is_file():
        sys.exit(f"error: --run: {options.run} has no model {options.model}; run recipes/tour.yaml first")
    recipe = yaml.safe_load((REPOSITORY / "recipes" / "tour.yaml").read_text(encoding="utf-8"))

    benchmarks = recipe["benchmarks"] | {START_UP: recipe["benchmarks"]["traps"] | {"limit": 1, "max_new_tokens": 1}}
    benchmarks = {name: benchmarks[name] for name in options.only or benchmarks}

    seconds: dict[tuple[str, str], list[float]] = {}
    scores: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, benchmark in benchmarks.items():
                for side, score in (("ours", score_by_job), ("lm-eval", score_by_command_line)):
                    started = time.perf_counter()
                    scores[name, side] = score(Path(folder), options, name, benchmark)
                    seconds.setdefault((name, side), []).append(time.perf_counter() - started)
                    print(f"{name}, {side}: {seconds[name, side][-1]:.1f} s", file=sys.stderr)
            seconds.setdefault((TWO_AT_ONCE, "ours"), []).append(score_two_at_once(Path(folder), options, benchmarks))
            print(f"{TWO_AT_ONCE}: {seconds[TWO_AT_ONCE, 'ours'][-1]:.1f} s", file=sys.stderr)
    print(make_table(list(benchmarks), seconds, scores))


def score_two_at_once(folder: Path, options: Any, benchmarks: dict[str, Any]) -> float:
    """Seconds of all our jobs except the one for the start-up time, two at once."""
    started = time.perf_counter()
    share = max(1, options.cpus // 2)

    def score(name: str) -> float:
        alone = folder / name
        alone.mkdir(exist_ok=True)
        return score_by_job(alone, options, name, benchmarks[name], share)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(score, [name for name in benchmarks if name != START_UP]))
    return time.perf_counter() - started


def score_by_job(folder: Path, options: Any, name: str, benchmark: dict[str, Any], cpus: int = 0) -> float:
    """Score the model with our job. `cpus` is the number of compute threads; 0 means that of the options."""
    cpus = cpus or options.cpus
    section = {"source": {"kind": "hub"}} | benchmark
    command = [sys.executable, "-m", "scripts.evaluate.run_benchmark", "--name", name, "--config", json.dumps(section)]
    command += ["--dtype", "float32", "--seed", "7", "--cpus", str(cpus), "--memory-mb", "6000"]
    command += ["--tasks", str(OWN_TASKS)]
    command += ["--model", str(options.paths.model(options.model)), "--model-name", options.model]
    command += ["--benchmark", str(options.paths.benchmark(benchmark["task"]))]
    command += [
        "--mirror",
        str(options.paths.mirror(benchmark["task"])),
        "--batch-sizes",
        str(folder / "batch_sizes.json"),
    ]
    command += ["--scores", str(folder / "ours.json"), "--items", str(folder / "ours.items.jsonl")]
    run(command, REPOSITORY, cpus)
    return float(json.loads((folder / "ours.json").read_text(encoding="utf-8"))["score"])


def score_by_command_line(folder: Path, options: Any, name: str, benchmark: dict[str, Any]) -> float:
    """Score the model with lm-eval's command line."""
    output = Path(tempfile.mkdtemp(dir=folder))
    model = find_model(options.paths.model(options.model)).resolve()
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", benchmark["task"], "--log_samples"]
    command += ["--model_args", f"pretrained={model},dtype=float32", "--device", "cpu", "--output_path", str(output)]
    command += ["--include_path", str(OWN_TASKS), "--batch_size", str(benchmark.get("batch_size", 16)), "--seed", "7"]
    command += ["--confirm_run_unsafe_code"]
    if "limit" in benchmark:
        command += ["--limit", str(benchmark["limit"])]
    if "max_new_tokens" in benchmark:
        command += ["--gen_kwargs", f"max_gen_toks={benchmark['max_new_tokens']}"]
    if benchmark.get("chat_template", True):
        command += ["--apply_chat_template", "--fewshot_as_multiturn", "true"]
    run(command, options.paths.mirror(benchmark["task"]), options.cpus)
    (path,) = output.rglob("results_*.json")
    result = json.loads(path.read_text(encoding="utf-8"))["results"][benchmark["task"]]
    return float(result[f"{benchmark['metric']},{benchmark.get('filter', 'none')}"])


def run(command: list[str], folder: Path, cpus: int) -> None:
    """Run a command without network. If it fails, exit with its output."""
    environment = os.environ | OFFLINE | {"OMP_NUM_THREADS": str(cpus)}
    environment |= {"PYTHONPATH": str(REPOSITORY), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command[:4])} failed:\n{done.stderr[-3000:]}")


def make_table(
    names: list[str], seconds: dict[tuple[str, str], list[float]], scores: dict[tuple[str, str], float]
) -> str:
    """The means as a Markdown table."""
    lines = ["| benchmark | ours (s) | lm-eval (s) | ratio | score, ours and lm-eval's |", "|---|---|---|---|---|"]
    totals = {"ours": 0.0, "lm-eval": 0.0}
    for name in names:
        means = {side: sum(seconds[name, side]) / len(seconds[name, side]) for side in totals}
        if name != START_UP:
            totals = {side: total + means[side] for side, total in totals.items()}
        ratio = means["lm-eval"] / means["ours"]
        both = f"{scores[name, 'ours']:.6f}, {scores[name, 'lm-eval']:.6f}"
        lines.append(f"| {name} | {means['ours']:.1f} | {means['lm-eval']:.1f} | {ratio:.2f} | {both} |")
    if all(totals.values()):
        ratio = totals["lm-eval"] / totals["ours"]
        lines.append(f"| all but {START_UP} | {totals['ours']:.1f} | {totals['lm-eval']:.1f} | {ratio:.2f} | |")
        together = seconds[TWO_AT_ONCE, "ours"]
        mean = sum(together) / len(together)
        lines.append(f"| {TWO_AT_ONCE} | {mean:.1f} | {totals['lm-eval']:.1f} | {totals['lm-eval'] / mean:.2f} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
