"""A wrong configuration is refused with the key, the mistake, and the nearest known name."""

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.common.config import Config
from scripts.common.config.loader import check_names, load_config
from scripts.common.errors import UserError
from tests.common.running import REPOSITORY, script_environment

Raw = dict[str, Any]

SMOKE: Raw = yaml.safe_load((REPOSITORY / "recipes" / "smoke.yaml").read_text(encoding="utf-8"))
RUNS = [REPOSITORY / "config.yaml", *sorted((REPOSITORY / "recipes").glob("*.yaml"))]


def _with(place: str, value: Any) -> Raw:
    """The smoke recipe with one key set, at a path such as `run/seed`."""
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
def test_config_and_recipes_load(path: Path) -> None:
    config = load_config(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
    assert config.models[0] == "base"
    assert set(config.models[1:]) == set(config.stages)
    # Scripts receive sections as JSON, so reading them back must not change them.
    assert Config.model_validate(config.as_dict()) == config


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
def test_an_unknown_key_gets_the_nearest_known_one(place: str, right: str) -> None:
    where = place.replace("/", ".")
    assert _refused(_with(place, 1)) == [f"mine.yaml: {where}: unknown key; did you mean '{right}'?"]


@pytest.mark.parametrize("name", ["hub", "file", "package", "random"])
def test_a_name_that_is_also_a_kind_stays_in_the_path(name: str) -> None:
    """Pydantic adds the kind to its location, and we remove it; a data set of that name must not be removed as well."""
    raw = _with(f"datasets/{name}", {"source": {"kind": "file", "path": "x", "pat": "x"}})
    assert _refused(raw) == [f"mine.yaml: datasets.{name}.source.pat: unknown key; did you mean 'path'?"]


def test_a_key_unlike_any_other_gets_a_list_of_known_keys() -> None:
    (line,) = _refused(_with("comparison/zzzzzz", 1))
    assert line == "mine.yaml: comparison.zzzzzz: unknown key; known: alpha, changed_share, grades"


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
def test_a_wrong_value_is_reported_in_one_line_with_its_key(place: str, value: Any, where: str) -> None:
    (line,) = _refused(_with(place, value))
    assert line.startswith(f"mine.yaml: {where}: "), line
    if isinstance(value, int | str):
        assert repr(value) in line or value in ("(", "hubb", "random", "rejections"), line


@pytest.mark.parametrize("raw", [None, [], "text", 5], ids=str)
def test_a_file_that_is_not_a_mapping_is_refused(raw: Any) -> None:
    (line,) = _refused(raw)
    assert line.startswith("mine.yaml: (top): ")


def test_all_mistakes_are_reported_at_once() -> None:
    raw = _with("run/sed", 1)
    del raw["model"]
    assert sorted(_refused(raw)) == [
        "mine.yaml: model: this key is required",
        "mine.yaml: run.sed: unknown key; did you mean 'seed'?",
    ]


def test_a_model_from_the_hub_needs_a_revision() -> None:
    raw = _with("model/source", {"kind": "hub", "repository": "Qwen/Qwen3-4B-Base"})
    assert _refused(raw) == ["mine.yaml: model.source.revision: this key is required"]


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
        "datasets.pairs.source.dataset: 'pairs' has preference rows; use a data set of messages with answers",
    ),
    (
        "stages/dpo/dataset",
        "sums",
        "datasets.sums: dpo and sft need different kinds of rows; use a data set for each",
    ),
    ("stages/sft/dataset", "pairs", "datasets.pairs: dpo and sft need different kinds of rows"),
    ("stages/dpo/method", "sft", "datasets.pairs: sft cannot train on preference pairs; use another data set"),
    ("stages/base", SMOKE["stages"]["sft"], "stages.base: this name is taken by the base model"),
    ("benchmarks/sft", SMOKE["benchmarks"]["chain_sum"], "benchmarks.sft: this name is taken by stages.sft"),
    ("judge", {"url": "http://x", "model": "m", "benchmark": "trap"}, "judge.benchmark: unknown benchmark 'trap'; did"),
    (
        "judge",
        {"url": "http://x", "model": "m", "benchmark": "chain_sum"},
        "judge.benchmark: 'chain_sum' has no rubrics",
    ),
    ("expectations/stf", {"pairs": "improves"}, "expectations.stf: there is no stage 'stf'; name one in `of`; did you"),
    ("expectations/end", {"of": "dpoo", "pairs": "improves"}, "expectations.end.of: unknown stage 'dpoo'; did you"),
    ("expectations/dpo/against", "bse", "expectations.dpo.against: unknown model 'bse'; did you mean 'base'?"),
    ("expectations/dpo/against", "dpo", "expectations.dpo.against: 'dpo' cannot be compared with itself; name another"),
    ("expectations/dpo/chain_sun", "improves", "expectations.dpo.chain_sun: unknown score 'chain_sun'; did you mean"),
    (
        "expectations/dpo/traps",
        "holds",
        "expectations.dpo.traps: 'holds' needs a margin, the drop that you",
    ),
    (
        "expectations/dpo/sums",
        "holds",
        "expectations.dpo.sums: 'holds' needs a margin, the drop that you tol",
    ),
    (
        "expectations/dpo/traps",
        "rises",
        "expectations.dpo.traps: input should be 'improves' or 'holds' (given",
    ),
    ("expectations/dpo", {"against": "base"}, "expectations.dpo: it expects nothing; add a score with 'improves' or"),
    (
        "expectations/again",
        {"of": "sft", "against": "base", "chain_sum": "holds"},
        "expectations.again.chain_sum: expectations.sft says this already; remove one of them",
    ),
    ("datasets/chain_sum", SMOKE["datasets"]["sums"], "datasets.chain_sum: this name is taken by benchmarks.chain_sum"),
    ("datasets/sft", SMOKE["datasets"]["sums"], "datasets.sft: this name is taken by stages.sft"),
]


@pytest.mark.parametrize(("place", "value", "line"), BROKEN_REFERENCES, ids=[c[2][:40] for c in BROKEN_REFERENCES])
def test_broken_references_and_repeated_names_are_refused(place: str, value: Any, line: str) -> None:
    (found,) = _refused(_with(place, value))
    assert found.startswith(f"mine.yaml: {line}")


def test_a_repeated_name_is_not_reported_as_a_circle() -> None:
    """The stage `pairs` samples answers for the data set `pairs`. The names collide, but neither needs itself."""
    raw = _with("stages/pairs", SMOKE["stages"]["sft"] | {"seed": 8})
    raw["datasets"]["pairs"]["source"]["model"] = "pairs"
    assert _refused(raw) == ["mine.yaml: datasets.pairs: this name is taken by stages.pairs; choose another"]


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        (
            "datasets/chain_sum_bare",
            SMOKE["datasets"]["sums"],
            "benchmarks.chain_sum.protocols.bare: its score would have the name of datasets.chain_sum_bare",
        ),
        (
            "benchmarks/chain_sum_bare",
            SMOKE["benchmarks"]["chain_sum"],
            "benchmarks.chain_sum.protocols.bare: its score would have the name of benchmarks.chain_sum_bare",
        ),
        ("judge", {"url": "http://x", "model": "m", "benchmark": "traps"}, "benchmarks.traps_judged: this name is"),
        (
            "expectations/dpo",
            {"traps_judged": "holds"},
            "expectations.dpo.traps_judged: 'holds' needs a margin, the drop that you tolerate; set benchmarks.traps.m",
        ),
    ],
)
def test_names_of_protocols_are_checked(place: str, value: Any, line: str) -> None:
    raw = _with(place, value)
    raw["benchmarks"]["chain_sum"]["protocols"] = {"bare": {"chat_template": False}}
    raw["benchmarks"]["traps"]["protocols"] = {"judged": {"max_new_tokens": 9}}
    (found,) = _refused(raw)
    assert found.startswith(f"mine.yaml: {line}")


TAKEN_BY_RULES = [
    ("stages/all", SMOKE["stages"]["sft"] | {"seed": 8}),
    ("benchmarks/report", SMOKE["benchmarks"]["chain_sum"]),
    ("datasets/filter_dataset", SMOKE["datasets"]["sums"]),
]


@pytest.mark.parametrize(("place", "section"), TAKEN_BY_RULES, ids=[place for place, _ in TAKEN_BY_RULES])
def test_the_name_of_a_rule_is_refused(place: str, section: Raw) -> None:
    config = load_config(_with(place, section))
    with pytest.raises(UserError) as caught:
        check_names(config, "mine.yaml", taken={"all", "report", "filter_dataset", "plan"})
    where = place.replace("/", ".")
    assert str(caught.value) == f"mine.yaml: {where}: this name is taken by a target of the pipeline; choose another"


def test_each_name_of_a_rule_is_reported_in_its_own_line() -> None:
    raw = _with("stages/all", SMOKE["stages"]["sft"] | {"seed": 8})
    raw["benchmarks"]["plan"] = SMOKE["benchmarks"]["chain_sum"]
    with pytest.raises(UserError) as caught:
        check_names(load_config(raw), "mine.yaml", taken=["all", "plan"])
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["stages.all", "benchmarks.plan"]


def test_names_that_no_rule_has_are_accepted() -> None:
    check_names(load_config(SMOKE), "mine.yaml", taken={"all", "train_sft", "sums0"})


def test_a_stage_that_starts_from_itself() -> None:
    (line,) = _refused(_with("stages/sft/from", "sft"))
    assert line.startswith("mine.yaml: stages.sft.from: ")
    assert "sft" in line and "dpo" not in line, "dpo depends on the circle, but changing it would not help"


def test_stages_that_start_from_each_other() -> None:
    (line,) = _refused(_with("stages/sft/from", "dpo"))
    assert line.startswith("mine.yaml: stages.sft.from: ") and "dpo" in line


def test_a_stage_cannot_train_on_pairs_that_it_samples_itself() -> None:
    """dpo needs pairs, and pairs need dpo. Snakemake would find this circle too, but not say which key to change."""
    (line,) = _refused(_with("datasets/pairs/source/model", "dpo"))
    assert line.startswith("mine.yaml: ") and "pairs" in line and "dpo" in line


def test_scientific_numbers_are_numbers() -> None:
    """YAML 1.1 reads `1e-5` as text, since it has no decimal point."""
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


def test_a_dry_run_imports_no_heavy_library() -> None:
    """Snakemake reads the configuration once for each job. Importing torch would add seconds each time."""
    rules = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "rules").glob("*.smk")]
    modules = sorted({module for text in rules for module in re.findall(r"^from (scripts\.\S+) import", text, re.M)})
    assert {"scripts.common.config.loader", "scripts.common.jobs", "scripts.evaluate.tasks"} <= {*modules}
    code = (
        f"import sys, {', '.join(modules)}; "
        "print(sorted({'torch', 'transformers', 'datasets', 'lm_eval', 'pyarrow'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=script_environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == "[]\n"
