"""The diagram of the rules, and the page that describes each of them."""

import networkx as nx

from scripts.common.paths import REPOSITORY
from scripts.common.rule_graph import draw_mermaid, list_rules, simplify

STEPS = (REPOSITORY / "docs" / "steps.md").read_text(encoding="utf-8")


def test_each_rule_has_a_paragraph_with_its_script() -> None:
    rules = list_rules(REPOSITORY)
    assert {"train_dpo", "train_grpo", "download_model", "plan", "build_pdf"} <= {
        r for of in rules.values() for r in of
    }
    paragraphs = {text.split("**")[1]: " ".join(text.split()) for text in STEPS.split("\n\n") if text.startswith("**")}
    assert paragraphs.keys() == {rule for of in rules.values() for rule in of}
    for room, names in rules.items():
        for rule in names:
            assert f"`scripts/{room}/{rule}.py`" in paragraphs[rule]


def test_edges_that_a_longer_path_implies_are_left_out() -> None:
    graph = nx.DiGraph([("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d")])
    assert set(simplify(graph).edges) == {("a", "b"), ("b", "c"), ("c", "d")}


def test_a_circle_of_rules_stays_connected() -> None:
    """Rows are filtered before a stage trains, and the stage answers the questions of other rows."""
    graph = nx.DiGraph([("filter", "train"), ("train", "sample"), ("sample", "filter"), ("load", "filter")])
    assert set(simplify(graph).edges) == set(graph.edges)


def test_rules_are_drawn_in_their_rooms() -> None:
    graph = nx.DiGraph([("load", "train"), ("train", "plot")])
    assert draw_mermaid(graph, {"data": ["load", "unused"], "train": ["train"], "cluster": ["status"]}) == (
        "flowchart LR\n    subgraph data\n        load\n    end\n    subgraph train\n        train\n    end\n"
        "    load --> train\n    train --> plot"
    )
