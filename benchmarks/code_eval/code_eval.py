"""The metric `code_eval`, which lm-eval's tasks load by name, with each program in our sandbox."""

import os
from concurrent.futures import ThreadPoolExecutor

import datasets
import evaluate

from scripts.evaluate.sandbox import find_sandbox, run_program


class CodeEval(evaluate.Metric):
    """The share of solved tasks, as `pass@1`."""

    def _info(self):
        features = {"predictions": datasets.Sequence(datasets.Value("string")), "references": datasets.Value("string")}
        return evaluate.MetricInfo(
            description="A program passes if it, followed by the tests of its task, runs to its end.",
            citation="",
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references, k, num_workers=4, timeout=3.0):
        """
        Args:
            predictions: the programs of each task: one, since our benchmarks never sample several.
            references: the tests of each task.
            k: [1].
            num_workers: number of programs that run at the same time.
            timeout: processor time of a program, in seconds.

        Returns:
            ({"pass@1": share}, outcome of each program by task).
        """
        if list(k) != [1] or any(len(programs) != 1 for programs in predictions):
            raise NotImplementedError("only pass@1 with one program for each task is supported")
        sandbox = find_sandbox(may_do_without=os.environ.get("HF_ALLOW_CODE_EVAL") == "1")

        def run(program, tests):
            return run_program(f"{program}\n{tests}", sandbox, timeout)

        with ThreadPoolExecutor(num_workers) as pool:
            reasons = list(pool.map(run, [programs[0] for programs in predictions], references))
        share = sum(not reason for reason in reasons) / len(reasons)
        outcomes = {
            task: [(0, {"task_id": task, "passed": not reason, "result": reason or "passed", "completion_id": 0})]
            for task, reason in enumerate(reasons)
        }
        return {"pass@1": share}, outcomes
