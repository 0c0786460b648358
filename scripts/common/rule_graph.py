"""The rules of the pipeline and the dependencies between them, as a Mermaid diagram."""

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import networkx as nx

RULES = re.compile(r"^(?:use )?rule (?:\w+ as )?(\w+)(?: with)?:", re.MULTILINE)
_NODE = re.compile(r'^\t(\d+)\[label = "(\w+)"', re.MULTILINE)
_EDGE = re.compile(r"^\t(\d+) -> (\d+)$", re.MULTILINE)


def list_rules(repository: Path) -> dict[str, list[str]]:
    """The rules of each file in rules/, by room."""
    files = sorted((repository / "rules").glob("*.smk"))
    return {path.stem: RULES.findall(path.read_text(encoding="utf-8")) for path in files}


def read_graph(repository: Path, recipe: str) -> nx.DiGraph:
    """Snakemake's graph of the rules that a recipe needs. An edge leads from a rule to a rule that reads its files."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", repository / "Snakefile", "--rulegraph"]
    with TemporaryDirectory() as folder:
        given = ["--directory", folder, "--configfile", repository / "recipes" / f"{recipe}.yaml"]
        words = list(map(str, [*command, *given]))
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    names = dict(_NODE.findall(text))
    graph = nx.DiGraph((names[tail], names[head]) for tail, head in _EDGE.findall(text))
    graph.remove_node("all")
    return graph


def simplify(graph: nx.DiGraph) -> nx.DiGraph:
    """The graph without edges that a longer path implies."""
    left = graph.copy()
    for tail, head in sorted(graph.edges):
        left.remove_edge(tail, head)
        if not nx.has_path(left, tail, head):
            left.add_edge(tail, head)
    return left


def draw_mermaid(graph: nx.DiGraph, rooms: dict[str, list[str]]) -> str:
    """The graph as a Mermaid flowchart with a box for each room."""
    lines = ["flowchart LR"]
    for room, rules in rooms.items():
        drawn = [rule for rule in rules if rule in graph]
        if drawn:
            lines += [f"    subgraph {room}", *(f"        {rule}" for rule in drawn), "    end"]
    return "\n".join([*lines, *(f"    {tail} --> {head}" for tail, head in sorted(graph.edges))])
