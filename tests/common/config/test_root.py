"""Properties that follow from several sections of a configuration: lineage, comparisons, stages by method."""

import copy
from typing import Any

import pytest

from scripts.common.config.loader import load_config
from scripts.common.errors import UserError
from tests.workflow.running import read_recipe


def test_lineage_and_comparisons() -> None:
    raw = read_recipe("smoke")
    raw["stages"] = {"dpo": raw["stages"]["dpo"], "sft": raw["stages"]["sft"]}  # children may come first
    config = load_config(raw)
    assert config.models == ["base", "sft", "dpo"]
    assert config.comparisons == [("base", "sft"), ("sft", "dpo"), ("base", "dpo")]
    assert config.held_out_pairs == ["pairs"]
    assert config.scores == ["chain_sum", "traps", "pairs", "sums"]
    assert [config.row_type(name) for name in ("sums", "pairs")] == ["messages", "preference"]


def with_seeds(**seeds: int) -> dict[str, Any]:
    """The smoke recipe with sft and dpo trained twice, and the given seeds."""
    raw = read_recipe("smoke")
    sft, dpo = raw["stages"]["sft"], raw["stages"]["dpo"]
    raw["stages"] |= {"sft_b": copy.deepcopy(sft), "dpo_b": copy.deepcopy(dpo) | {"from": "sft_b"}}
    for name, seed in seeds.items():
        raw["stages"][name]["seed"] = seed
    return raw


def test_stages_that_differ_only_in_seeds_are_compared_together() -> None:
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


def test_seeds_are_left_out_if_only_some_share_a_parent() -> None:
    nested = with_seeds(sft_b=8)
    nested["stages"]["dpo_c"] = copy.deepcopy(nested["stages"]["dpo"]) | {"seed": 9}
    assert [row["stage"] for row in load_config(nested).seed_comparisons] == ["sft"]
    del nested["stages"]["sft_b"], nested["stages"]["dpo_b"]
    assert [row["stage"] for row in load_config(nested).seed_comparisons] == ["dpo", "dpo"], "all have one parent"


def test_a_copy_of_a_stage_is_refused() -> None:
    with pytest.raises(UserError, match=r"stages\.sft_b: identical to stages\.sft, including the seed"):
        load_config(with_seeds(dpo_b=9))


def test_stages_by_method() -> None:
    raw = read_recipe("smoke")
    raw["stages"]["again"] = raw["stages"]["sft"] | {"from": "dpo", "dataset": "more_sums"}
    config = load_config(raw)
    assert config.stages_by("sft") == ["sft", "again"]
    assert config.stages_by("dpo") == ["dpo"]
    assert config.stages_by("grpo") == []


@pytest.mark.parametrize("overlap", ["remove", "flag"])
def test_rows_are_searched_for_all_benchmarks_unless_overlap_is_ignored(overlap: str) -> None:
    raw = read_recipe("smoke")
    raw["datasets"]["sums"]["filters"]["benchmark_overlap"] = overlap
    raw["datasets"]["more_sums"]["filters"] = {"benchmark_overlap": "ignore"}
    config = load_config(raw)
    assert config.compared_benchmarks("sums") == config.compared_benchmarks("pairs") == ["chain_sum", "traps"]
    assert config.compared_benchmarks("more_sums") == []


def test_a_run_without_benchmarks_searches_for_none() -> None:
    assert load_config(read_recipe("smoke") | {"benchmarks": {}, "expectations": {}}).compared_benchmarks("sums") == []


def test_expectations_are_about_a_stage_and_its_parent_unless_they_name_others() -> None:
    raw = read_recipe("smoke")
    raw["expectations"] = {
        "dpo": {"pairs": "improves", "chain_sum": "holds"},
        "late": {"of": "dpo", "against": "base", "sums": "improves"},
        "back": {"of": "sft", "against": "dpo", "pairs": "improves"},
    }
    config = load_config(raw)
    assert [(one["model"], one["baseline"], one["benchmark"], one["expected"]) for one in config.expected_changes] == [
        ("dpo", "sft", "pairs", "improves"),
        ("dpo", "sft", "chain_sum", "holds"),
        ("dpo", "base", "sums", "improves"),
        ("sft", "dpo", "pairs", "improves"),
    ]
    assert [one["margin"] for one in config.expected_changes] == [None, 0.5, None, None]
    assert config.comparisons == [("base", "sft"), ("sft", "dpo"), ("base", "dpo"), ("dpo", "sft")]


def test_protocols_are_scores_of_their_own() -> None:
    """They take what they do not change from their benchmark, do not count towards its ability, and follow it."""
    raw = read_recipe("smoke")
    protocols = {"few": {"shots": 3, "chat_template": False}, "long": {"max_new_tokens": 9}}
    raw["benchmarks"]["chain_sum"]["protocols"] = protocols
    config = load_config(raw)
    assert config.scores == ["chain_sum", "chain_sum_few", "chain_sum_long", "traps", "pairs", "sums"]
    main, few, long = (config.protocols[name] for name in config.scores[:3])
    assert (few.shots, few.chat_template, few.max_new_tokens) == (3, False, main.max_new_tokens)
    assert (long.shots, long.chat_template, long.max_new_tokens) == (main.shots, True, 9)
    assert config.benchmark_of == {name: name.split("_few")[0].split("_long")[0] for name in config.protocols}
    assert config.abilities == {"chain_sum": "mathematics"}
    plain = load_config(read_recipe("smoke")).benchmarks["chain_sum"]
    assert main.identity() == plain.identity(), "a further protocol does not score the models again under the first"
    raw["expectations"]["sft"]["chain_sum_few"] = "holds"
    assert load_config(raw).expected_changes[1]["margin"] == 0.5


def test_a_protocol_that_changes_nothing_is_refused() -> None:
    raw = read_recipe("smoke")
    raw["benchmarks"]["traps"]["protocols"] = {"same": {"max_new_tokens": 8}}
    with pytest.raises(UserError, match=r"benchmarks.traps: protocols.same changes nothing; set a key"):
        load_config(raw)
