"""A complete run on the smallest model: every artefact exists, records its origin, and is not made again."""

import json
from pathlib import Path

import pytest

from scripts.common.records import Comparison
from tests.workflow.running import RECIPES, planned_jobs, snakemake

pytestmark = pytest.mark.slow


def test_there_is_a_report(finished: Path) -> None:
    pdf = finished / "results/smoke/report.pdf"
    assert pdf.read_bytes().startswith(b"%PDF")
    for figure in ("funnel", "lengths", "training", "scores"):
        for kind in ("svg", "png"):
            assert (finished / f"results/smoke/figures/{figure}.{kind}").stat().st_size > 1000


def test_there_are_cards_of_data_sets_and_models(finished: Path) -> None:
    results = finished / "results/smoke"
    card = json.loads((results / "data/pairs.json").read_text())
    assert card["summary"]["tokens"]["splits"]["test"]["rows"] == 8
    page = (results / "models/dpo.md").read_text()
    # The DPO model was trained on both data sets.
    assert "## Data set sums" in page and "## Data set pairs" in page


def test_check_data_shows_the_trained_span(finished: Path) -> None:
    run = snakemake(finished, "check_data", "--configfile", RECIPES / "smoke.yaml", "--cores", "1")
    assert run.returncode == 0, run.stdout[-3000:]
    assert "== sums: 96 messages rows" in run.stdout
    assert "Answer: " in run.stdout.split("\u27e6")[1].split("<|im_end|>\u27e7")[0]


def test_each_stage_is_compared_with_its_parent_and_the_base(finished: Path) -> None:
    rows = json.loads((finished / "results/smoke/comparison.json").read_text())
    assert all(row.keys() == Comparison.__annotations__.keys() for row in rows)
    compared = {(row["benchmark"], row["baseline"], row["model"]) for row in rows}
    pairs = [("base", "sft"), ("sft", "dpo"), ("base", "dpo")]
    assert compared == {(benchmark, *pair) for benchmark in ("chain_sum", "traps", "pairs", "sums") for pair in pairs}
    expected = {(row["benchmark"], row["model"]): (row["expected"], row["family"]) for row in rows if row["outcome"]}
    assert expected == {
        ("chain_sum", "sft"): ("improves", "confirmatory"),
        ("chain_sum", "dpo"): ("holds", "confirmatory"),
        ("pairs", "dpo"): ("improves", "confirmatory"),
    }
    (registered,) = json.loads((finished / "results/smoke/expectations.json").read_text())
    assert not registered["after_training"] and len(registered["expectations"]) == 3
    unread = [row["origin"]["unreadable"]["items"] for row in rows if row["origin"]]
    assert len(unread) == 3 and {row["benchmark"] for row in rows if row["origin"]} == {"chain_sum"}


def test_every_manifest_records_versions_inputs_and_costs(finished: Path) -> None:
    found = [*finished.glob("work/smoke/**/manifest.json"), *finished.glob("work/smoke/**/source.json")]
    manifests = [path for path in found if "checkpoints" not in path.parts]
    assert len(manifests) == 3 + 3 + 3 + 2  # models, downloads or samples, filtered data sets, benchmarks
    for path in manifests:
        manifest = json.loads(path.read_text())
        assert manifest["versions"]["torch"].startswith("2.13.0")
        assert manifest["seconds"] > 0 and manifest["peak_memory_bytes"] > 1e7
        assert all(len(digest) == 64 for digest in manifest["inputs"].values())


def test_trained_models_differ_from_their_parents(finished: Path) -> None:
    facts = {
        m: json.loads((finished / f"work/smoke/models/{m}/manifest.json").read_text())["facts"] for m in ("sft", "dpo")
    }
    assert facts["sft"]["weights_sha256"] != facts["dpo"]["weights_sha256"]
    assert facts["sft"]["steps"] == 8 and facts["dpo"]["steps"] == 4


def test_a_second_run_has_nothing_to_do(finished: Path) -> None:
    run = snakemake(finished, "--configfile", RECIPES / "smoke.yaml", "--cores", "2")
    assert run.returncode == 0
    assert "Nothing to be done" in run.stdout
    assert planned_jobs(run.stdout) == set()


def test_snakemakes_own_report_contains_the_figures(finished: Path) -> None:
    page = finished / "report.html"
    run = snakemake(finished, "--configfile", RECIPES / "smoke.yaml", "--report", page)
    assert run.returncode == 0, run.stdout[-3000:]
    assert "scores.svg" in page.read_text(encoding="utf-8")
