"""The card of a model: lineage, scores, comparisons and the cards of its data sets."""

import sys
from pathlib import Path

import pytest

from scripts.common.files import write_json
from scripts.common.records import Score
from scripts.report import write_model_card
from scripts.report.contents import Tables
from tests.report.conftest import plain
from tests.report.tables import make_stage, make_tables


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    tables = make_tables()
    tables.stages[0] = make_stage("sft", "sft", "base", "sums", train_rows=1200, steps=75, train_seconds=130.0)
    paths: dict[str, list[Path]] = {"models": [], "scores": [], "cards": [tmp_path / "sums.md"]}
    for model in tables.models:
        paths["models"].append(tmp_path / f"{model['name']}.json")
        write_json(paths["models"][-1], model)
    for number, score in enumerate(own_scores(tables)):
        paths["scores"].append(tmp_path / f"score{number}.json")
        write_json(paths["scores"][-1], score)
    paths["cards"][0].write_text("# Data set sums\n\n## Lengths\n\ntext\n", encoding="utf-8")
    tables.comparisons[-1]["p_adjusted"] = 0.002
    write_json(tmp_path / "comparison.json", tables.comparisons)
    words = [word for name, given in paths.items() for word in (f"--{name}", *map(str, given))]
    output = tmp_path / "dpo.md"
    others = ["--comparison", str(tmp_path / "comparison.json"), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["write_model_card", *words, *others])
    write_model_card.main()
    return output.read_text(encoding="utf-8")


def own_scores(tables: Tables) -> list[Score]:
    return [score for score in tables.scores if score["model"] == "dpo"]


def test_the_lineage_is_in_order(card: str) -> None:
    lines = [line.split(" | ")[0].strip("| ") for line in card.splitlines() if line.startswith("|")]
    assert [name for name in lines if name in ("base", "sft", "dpo")][:3] == ["base", "sft", "dpo"]


def test_the_lineage_has_rows_steps_and_time(card: str) -> None:
    lines = plain(card).splitlines()
    assert "| base | – | package tiny-model 1.0 | – | 134.5 M | – |" in lines
    assert "| sft | SFT, full, seed 42 | sums | 1,200 | 75 | 2 min 10 s |" in lines
    assert "| dpo | DPO, lora, seed 42 | pairs | 600 | 20 | 2 min 0 s |" in lines


def test_differences_have_interval_and_adjusted_p(card: str) -> None:
    lines = plain(card).splitlines()
    assert "| sft | sums | 200 | +2.0 | −3.0 to +7.0 | 0.400 | no difference found |" in lines
    assert "| base | pairs | 200 | +19.0 | +14.0 to +24.0 | 0.002 | improved |" in lines


def test_every_score_has_n_and_interval(card: str) -> None:
    for score in own_scores(make_tables()):
        percents = [f"{100 * share:.1f}" for share in (score["score"], score["ci_low"], score["ci_high"])]
        (line,) = [
            line for line in card.splitlines() if all(f" {value} " in line for value in (str(score["n"]), *percents))
        ]
        assert score["metric"].split("_")[0] in line


def test_only_comparisons_of_this_model(card: str) -> None:
    comparisons = make_tables().comparisons
    own = [row for row in comparisons if row["model"] == "dpo"]
    assert len(own) < len(comparisons)
    verdicts = [line for line in card.splitlines() if line.endswith((" improved |", " worsened |", "found |"))]
    assert len(verdicts) == len(own)


def test_headings_of_data_cards_are_one_level_deeper(card: str) -> None:
    assert "\n## Data set sums\n\n### Lengths\n" in card
