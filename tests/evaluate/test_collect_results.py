"""All results of a run in one JSON file."""

from pathlib import Path

from scripts.common.files import read_json, write_json, write_json_lines
from scripts.evaluate.collect_results import describe_training
from scripts.train.meter import write_steps
from tests.common.running import call_main
from tests.report.tables import make_stage

STEPS = [
    {"step": 1, "loss": 3.0},
    {"step": 2, "eval_loss": 2.5},
    {"step": 3, "loss": 1.0},
    {"step": 4, "eval_loss": 2.75},
]


def test_training_scores_and_answers_of_all_models(tmp_path: Path) -> None:
    scores, answers = [], []
    shares = {("base", "sums"): 0.25, ("base", "talk"): 0.3, ("sft", "sums"): 0.5, ("sft", "talk"): 0.6}
    shares |= {("dpo", "sums"): 0.75, ("dpo", "talk"): 0.9}
    for model, steps, seconds in (("base", None, None), ("sft", 3, 9.5), ("dpo", 7, 21.0)):
        write_json(tmp_path / f"{model}.json", {"name": model, "facts": {"steps": steps, "train_seconds": seconds}})
        for benchmark, written in (("sums", False), ("talk", True)):
            path = tmp_path / model / f"{benchmark}.json"
            numbers = {
                "metric": "m",
                "n": 4,
                "score": shares[model, benchmark],
                "ci_low": 0.1,
                "ci_high": 0.9,
                "others": [],
            }
            write_json(path, {"model": model, "benchmark": benchmark, "protocol": {}} | numbers)
            asked = [{"key": str(i), "prompt": f"{i}?", "target": "t", "answer": model, "score": 1.0} for i in range(4)]
            write_json_lines(path.with_suffix(".items.jsonl"), asked)
            scores.append(path)
            answers += [path.with_suffix(".items.jsonl")] if written else []
    write_steps(tmp_path / "sft.parquet", STEPS)
    write_steps(tmp_path / "dpo.parquet", [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.25}])
    write_json(tmp_path / "comparison.json", [{"benchmark": "sums", "verdict": "improved"}])
    write_json(tmp_path / "seeds.json", [{"benchmark": "sums", "seeds": 3}])
    write_json(tmp_path / "abilities.json", {"mathematics": {}})
    call_main(
        "evaluate.collect_results",
        tmp_path,
        run="mine",
        models=["base.json", "sft.json", "dpo.json"],
        logs=["sft.parquet", "dpo.parquet"],
        scores=scores,
        answers=answers,
        answered=[f"{path.parent.name}:talk" for path in answers],
        comparison="comparison.json",
        seed_comparison="seeds.json",
        abilities="abilities.json",
        output="results.json",
    )
    results = read_json(tmp_path / "results.json")
    assert results["run"] == "mine" and list(results["models"]) == ["base", "sft", "dpo"]
    base, sft, dpo = results["models"].values()
    assert base["training"] is None
    assert sft["training"] == {
        "first_loss": 3.0,
        "last_loss": 1.0,
        "best_validation_loss": 2.5,
        "last_validation_loss": 2.75,
        "steps": 3,
        "seconds": 9.5,
    }
    assert dpo["training"] == {
        "first_loss": 0.7,
        "last_loss": 0.25,
        "best_validation_loss": None,
        "last_validation_loss": None,
        "steps": 7,
        "seconds": 21.0,
    }
    assert sft["scores"]["sums"] == {
        "metric": "m",
        "n": 4,
        "score": 0.5,
        "ci_low": 0.1,
        "ci_high": 0.9,
        "others": [],
    }
    found = {
        (model, name): score["score"]
        for model, entry in results["models"].items()
        for name, score in entry["scores"].items()
    }
    assert found == shares
    assert results["comparisons"] == [{"benchmark": "sums", "verdict": "improved"}]
    assert results["seed_comparisons"] == [{"benchmark": "sums", "seeds": 3}]
    assert results["abilities"] == {"mathematics": {}}
    assert list(sft["samples"]) == ["talk"], "samples are from generated answers only"
    assert [sample["prompt"] for sample in sft["samples"]["talk"]] == ["0?", "1?", "2?"]
    assert base["samples"]["talk"][0] == {"prompt": "0?", "target": "t", "answer": "base", "score": 1.0}


def test_a_stage_without_a_logged_loss() -> None:
    training = describe_training(make_stage("sft", "sft", "base", "sums")["facts"], [{"step": 4, "eval_loss": 2.0}])
    assert training["first_loss"] is None and training["best_validation_loss"] == 2.0
