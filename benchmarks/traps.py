"""Scoring of the task `traps`, which lm-eval calls for each answer."""

from scripts.evaluate.rubric import score_by_rules


def process_results(document, results):
    """The share of points that the answer meets, of the points of its rubric that a rule can decide."""
    return {"rule_points": score_by_rules(document["rubric"], results[0])}
