"""The card of a model: every number of its tables, the lineage in order, its data sets' cards under its headings."""

import sys
from pathlib import Path

import pytest

from scripts.common.files import write_json
from scripts.report import write_model_card
from tests.report.tables import Json, make_tables


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    tables = make_tables()
    paths: dict[str, list[Path]] = {"models": [], "scores": [], "cards": [tmp_path / "sums.md"]}
    for model in tables["models"]:
        paths["models"].append(tmp_path / f"{model['name']}.json")
        write_json(paths["models"][-1], model)
    for number, score in enumerate(own_scores(tables)):
        paths["scores"].append(tmp_path / f"score{number}.json")
        write_json(paths["scores"][-1], score)
    paths["cards"][0].write_text("# Data set sums\n\n## Lengths\n\ntext\n", encoding="utf-8")
    write_json(tmp_path / "comparison.json", tables["comparisons"])
    words = [word for name, given in paths.items() for word in (f"--{name}", *map(str, given))]
    output = tmp_path / "dpo.md"
    others = ["--comparison", str(tmp_path / "comparison.json"), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["write_model_card", *words, *others])
    write_model_card.main()
    return output.read_text(encoding="utf-8")


def own_scores(tables: Json) -> list[Json]:
    return [score for score in tables["scores"] if score["model"] == "dpo"]


def test_the_lineage_stands_in_order(card: str) -> None:
    lines = [line.split(" | ")[0].strip("| ") for line in card.splitlines() if line.startswith("|")]
    assert [name for name in lines if name in ("base", "sft", "dpo")][:3] == ["base", "sft", "dpo"]


def test_every_score_has_its_n_and_interval(card: str) -> None:
    for score in own_scores(make_tables()):
        percents = [f"{100 * score[key]:.1f}" for key in ("score", "ci_low", "ci_high")]
        (line,) = [
            line for line in card.splitlines() if all(f" {value} " in line for value in (str(score["n"]), *percents))
        ]
        assert score["metric"].split("_")[0] in line


def test_only_comparisons_of_the_model_itself(card: str) -> None:
    tables = make_tables()
    own = [row for row in tables["comparisons"] if row["model"] == "dpo"]
    assert len(own) < len(tables["comparisons"])
    verdicts = [line for line in card.splitlines() if line.endswith((" improved |", " worsened |", "found |"))]
    assert len(verdicts) == len(own)


def test_data_cards_stand_one_level_deeper(card: str) -> None:
    assert "\n## Data set sums\n\n### Lengths\n" in card
