"""What the task `traps` asks lm-eval to do with an answer."""

from scripts.evaluate.rubric import score_by_rules


def process_results(document, results):
    """The share of the rubric's points, of those that a rule decides, that the answer meets."""
    return {"rule_points": score_by_rules(document["rubric"], results[0])}
