"""A wrong configuration is refused with the key, what was wrong, and the nearest right name."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.common.config import Config
from scripts.common.errors import UserError
from scripts.common.load_config import load_config
from tests.common.running import REPOSITORY, script_environment

Raw = dict[str, Any]

SMOKE: Raw = yaml.safe_load((REPOSITORY / "recipes" / "smoke.yaml").read_text(encoding="utf-8"))
RUNS = [REPOSITORY / "config.yaml", *sorted((REPOSITORY / "recipes").glob("*.yaml"))]


def _with(place: str, value: Any) -> Raw:
    """The smoke recipe with one key set, at a place such as `run/seed`."""
    raw = copy.deepcopy(SMOKE)
    *above, last = place.split("/")
    section = raw
    for key in above:
        section = section.setdefault(key, {})
    section[last] = value
    return raw


def _refused(raw: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_config(raw, "mine.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_run_that_we_ship_loads(path: Path) -> None:
    config = load_config(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
    assert config.models[0] == "base"
    assert set(config.models[1:]) == set(config.stages)
    # Its parts are what the scripts get as JSON: they must come back as they were.
    assert Config.model_validate(config.part()) == config


UNKNOWN_KEYS = [
    ("runn", "run"),
    ("run/sed", "seed"),
    ("model/sauce", "source"),
    ("model/source/layer", "layers"),
    ("datasets/sums/filter", "filters"),
    ("datasets/sums/source/parameter", "parameters"),
    ("datasets/sums/filters/max_token", "max_tokens"),
    ("datasets/pairs/source/temprature", "temperature"),
    ("stages/sft/form", "from"),
    ("stages/dpo/lora/alfa", "alpha"),
    ("benchmarks/chain_sum/shot", "shots"),
    ("benchmarks/chain_sum/source/sedd", "seed"),
    ("comparison/alfa", "alpha"),
    ("plot/colors", "colours"),
    ("report/langage", "language"),
    ("resources/trane", "train"),
    ("resources/train/gpu", "gpus"),
]


@pytest.mark.parametrize(("place", "right"), UNKNOWN_KEYS)
def test_an_unknown_key_names_the_nearest_right_one(place: str, right: str) -> None:
    where = place.replace("/", ".")
    assert _refused(_with(place, 1)) == [f"mine.yaml: {where}: unknown key; did you mean '{right}'?"]


@pytest.mark.parametrize("name", ["hub", "file", "package", "random"])
def test_a_name_that_is_also_a_kind_stays_in_the_path(name: str) -> None:
    """Pydantic puts the kind into its location, and we take it out again; a data set may be called like that."""
    raw = _with(f"datasets/{name}", {"source": {"kind": "file", "path": "x", "pat": "x"}})
    assert _refused(raw) == [f"mine.yaml: datasets.{name}.source.pat: unknown key; did you mean 'path'?"]


def test_a_key_with_no_near_name_lists_what_is_known() -> None:
    (line,) = _refused(_with("comparison/zzzzzz", 1))
    assert line == "mine.yaml: comparison.zzzzzz: unknown key; known: alpha, grades"


WRONG_VALUES = [
    ("run/name", 5, "run.name"),
    ("run/cache", 5, "run.cache"),
    ("run/name", "a b", "run.name"),
    ("run/seed", "many", "run.seed"),
    ("run/seed", -1, "run.seed"),
    ("model/system", 5, "model.system"),
    ("model/source", "Qwen/Qwen3-4B", "model.source"),
    ("model/source", {}, "model.source"),
    ("model/source/kind", "hubb", "model.source"),
    ("model/source/hidden_size", "wide", "model.source.hidden_size"),
    ("datasets/sums/source/kind", "random", "datasets.sums.source"),
    ("datasets/pairs/source/answer_pattern", "(", "datasets.pairs.source"),
    ("benchmarks/chain_sum/source/kind", "rejections", "benchmarks.chain_sum.source"),
    ("stages", None, "stages"),
    ("stages/sft", None, "stages.sft"),
    ("stages/sft/from", 5, "stages.sft.from"),
    ("stages/sft/method", "stf", "stages.sft.method"),
    ("stages/sft/args", "learning_rate", "stages.sft.args"),
    ("plot/colours", ["red", "#000000"], "plot.colours.0"),
    ("stages/a b", {"method": "sft", "from": "base", "dataset": "sums"}, "stages.a b"),
]


@pytest.mark.parametrize(("place", "value", "where"), WRONG_VALUES, ids=[f"{c[2]}={c[1]}" for c in WRONG_VALUES])
def test_a_wrong_value_is_one_line_that_names_its_key(place: str, value: Any, where: str) -> None:
    (line,) = _refused(_with(place, value))
    assert line.startswith(f"mine.yaml: {where}: "), line
    if isinstance(value, int | str):
        assert repr(value) in line or value in ("(", "hubb", "random", "rejections"), line


@pytest.mark.parametrize("raw", [None, [], "text", 5], ids=str)
def test_a_file_that_is_no_mapping_is_refused(raw: Any) -> None:
    (line,) = _refused(raw)
    assert line.startswith("mine.yaml: (top): ")


def test_all_problems_are_told_at_once() -> None:
    raw = _with("run/sed", 1)
    del raw["model"]
    assert sorted(_refused(raw)) == [
        "mine.yaml: model: this key is needed and missing",
        "mine.yaml: run.sed: unknown key; did you mean 'seed'?",
    ]


def test_a_model_hub_needs_a_revision() -> None:
    raw = _with("model/source", {"kind": "hub", "repository": "Qwen/Qwen3-4B-Base"})
    assert _refused(raw) == ["mine.yaml: model.source.revision: this key is needed and missing"]


BROKEN_REFERENCES = [
    ("stages/sft/from", "bse", "stages.sft.from: unknown stage 'bse'; did you mean 'base'?"),
    ("stages/sft/dataset", "sum", "stages.sft.dataset: unknown data set 'sum'; did you mean 'sums'?"),
    ("datasets/pairs/source/model", "stf", "datasets.pairs.source.model: unknown stage 'stf'; did you mean 'sft'?"),
    (
        "datasets/pairs/source/dataset",
        "more_sum",
        "datasets.pairs.source.dataset: unknown data set 'more_sum'; did you mean 'more_sums'?",
    ),
    (
        "datasets/pairs/source/dataset",
        "pairs",
        "datasets.pairs.source.dataset: 'pairs' holds preference pairs; questions with answers are needed",
    ),
    (
        "stages/dpo/dataset",
        "sums",
        "datasets.sums: rows of one kind cannot serve dpo and sft; declare a second data set",
    ),
    ("stages/sft/dataset", "pairs", "datasets.pairs: rows of one kind cannot serve dpo and sft"),
    ("stages/all", SMOKE["stages"]["sft"], "stages.all: this name is taken by a target of the pipeline"),
    ("stages/base", SMOKE["stages"]["sft"], "stages.base: this name is taken by the base model"),
    ("benchmarks/sft", SMOKE["benchmarks"]["chain_sum"], "benchmarks.sft: this name is taken by stages.sft"),
    ("benchmarks/report", SMOKE["benchmarks"]["chain_sum"], "benchmarks.report: this name is taken by a target"),
    ("judge", {"url": "http://x", "model": "m", "benchmark": "trap"}, "judge.benchmark: unknown benchmark 'trap'; did"),
    (
        "judge",
        {"url": "http://x", "model": "m", "benchmark": "chain_sum"},
        "judge.benchmark: 'chain_sum' has no rubrics",
    ),
    ("datasets/chain_sum", SMOKE["datasets"]["sums"], "datasets.chain_sum: this name is taken by benchmarks.chain_sum"),
]


@pytest.mark.parametrize(("place", "value", "line"), BROKEN_REFERENCES, ids=[c[2][:40] for c in BROKEN_REFERENCES])
def test_names_that_point_nowhere_or_twice(place: str, value: Any, line: str) -> None:
    (found,) = _refused(_with(place, value))
    assert found.startswith(f"mine.yaml: {line}")


def test_a_stage_that_starts_from_itself() -> None:
    (line,) = _refused(_with("stages/sft/from", "sft"))
    assert line.startswith("mine.yaml: stages.sft.from: ")
    assert "sft" in line and "dpo" not in line, "dpo only hangs on the circle, and changing it would not help"


def test_stages_that_start_from_each_other() -> None:
    (line,) = _refused(_with("stages/sft/from", "dpo"))
    assert line.startswith("mine.yaml: stages.sft.from: ") and "dpo" in line


def test_a_stage_cannot_train_on_pairs_that_it_has_sampled_itself() -> None:
    """dpo needs pairs, and pairs need dpo: Snakemake would find the circle, without a word on which key to change."""
    (line,) = _refused(_with("datasets/pairs/source/model", "dpo"))
    assert line.startswith("mine.yaml: ") and "pairs" in line and "dpo" in line


def test_scientific_numbers_are_numbers() -> None:
    """YAML 1.1 reads `1e-5` as text, since it has no point."""
    assert yaml.safe_load("1e-5") == "1e-5"
    raw = _with(
        "stages/sft/args", {"learning_rate": "1e-5", "adam": {"betas": ["9E-1", ".99e0"]}, "optim": "adamw_1e-5"}
    )
    raw["comparison"] = {"alpha": "5e-2"}
    raw["datasets"]["pairs"]["filters"] = {"min_margin": "1e-1"}
    config = load_config(raw)
    assert config.stages["sft"].args == {"learning_rate": 1e-5, "adam": {"betas": [0.9, 0.99]}, "optim": "adamw_1e-5"}
    assert config.comparison.alpha == 0.05
    assert config.datasets["pairs"].filters.min_margin == 0.1


def test_lineage_and_comparisons() -> None:
    raw = copy.deepcopy(SMOKE)
    raw["stages"] = {"dpo": raw["stages"]["dpo"], "sft": raw["stages"]["sft"]}  # children may stand first
    config = load_config(raw)
    assert config.models == ["base", "sft", "dpo"]
    assert config.comparisons == [("base", "sft"), ("sft", "dpo"), ("base", "dpo")]
    assert config.held_out_pairs == ["pairs"]
    assert config.scores == ["chain_sum", "traps", "pairs", "sums"]
    assert [config.form(name) for name in ("sums", "pairs")] == ["messages", "preference"]


def with_seeds(**seeds: int) -> dict[str, Any]:
    """The smoke recipe with sft and dpo trained once more, with other seeds."""
    raw = copy.deepcopy(SMOKE)
    sft, dpo = raw["stages"]["sft"], raw["stages"]["dpo"]
    raw["stages"] |= {"sft_b": copy.deepcopy(sft), "dpo_b": copy.deepcopy(dpo) | {"from": "sft_b"}}
    for name, seed in seeds.items():
        raw["stages"][name]["seed"] = seed
    return raw


def test_stages_that_differ_in_seeds_alone_are_compared_together() -> None:
    config = load_config(with_seeds(sft_b=8))
    assert [config.seed_of(name) for name in ("sft", "sft_b", "dpo_b")] == [7, 8, 7]
    assert config.seed_comparisons == [
        {"baseline": "base", "stage": "sft", "pairs": [("base", "sft"), ("base", "sft_b")]},
        {"baseline": "sft", "stage": "dpo", "pairs": [("sft", "dpo"), ("sft_b", "dpo_b")]},
        {"baseline": "base", "stage": "dpo", "pairs": [("base", "dpo"), ("base", "dpo_b")]},
    ]
    other = with_seeds(sft_b=8)
    other["stages"]["sft_b"]["args"]["learning_rate"] = 0.5
    assert load_config(other).seed_comparisons == []
    limited = with_seeds()
    limited["stages"]["sft_b"]["time_limit"] = 1
    assert load_config(limited).seed_comparisons == [], "a limit may cut the schedule"


def test_seeds_of_which_some_share_a_parent_are_no_draws_of_their_own() -> None:
    nested = with_seeds(sft_b=8)
    nested["stages"]["dpo_c"] = copy.deepcopy(nested["stages"]["dpo"]) | {"seed": 9}
    assert [row["stage"] for row in load_config(nested).seed_comparisons] == ["sft"]
    del nested["stages"]["sft_b"], nested["stages"]["dpo_b"]
    assert [row["stage"] for row in load_config(nested).seed_comparisons] == ["dpo", "dpo"], "all of one parent"


def test_a_copy_of_a_stage_is_refused() -> None:
    with pytest.raises(UserError, match=r"stages\.sft_b: the same as stages\.sft, seed and all"):
        load_config(with_seeds(dpo_b=9))


def test_a_dry_run_loads_no_heavy_library() -> None:
    """Snakemake reads the configuration once a job: importing torch there would cost seconds each time."""
    code = (
        "import sys, scripts.common.config, scripts.evaluate.tasks; "
        "print(sorted({'torch', 'transformers', 'datasets', 'lm_eval'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=script_environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == "[]\n"
