"""The metric `code_eval` that lm-eval's tasks ask for by name, with our sandbox around each program."""

import os
from concurrent.futures import ThreadPoolExecutor

import datasets
import evaluate

from scripts.evaluate.sandbox import find_sandbox, run_program


class CodeEval(evaluate.Metric):
    """The share of tasks that are solved, as `pass@1`."""

    def _info(self):
        features = {"predictions": datasets.Sequence(datasets.Value("string")), "references": datasets.Value("string")}
        return evaluate.MetricInfo(
            description="Programs that reach their end when the task's tests follow them.",
            citation="",
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references, k, num_workers=4, timeout=3.0):
        """
        Args:
            predictions: programs by task; one each, since no benchmark of ours samples several.
            references: the tests of each task.
            k: [1].
            num_workers: programs that run at once.
            timeout: seconds of processor time.

        Returns:
            ({"pass@1": share}, outcome of each program by task).
        """
        if list(k) != [1] or any(len(programs) != 1 for programs in predictions):
            raise NotImplementedError("only pass@1 of one answer a task is there")
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
