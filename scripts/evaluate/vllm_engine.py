"""lm-eval's vLLM model. It needs other package versions than the rest, so it has a separate environment."""

import os
from typing import Any

import torch
from lm_eval.models.vllm_causallms import VLLM

from scripts.common.config.benchmark import LONGEST_ANSWER
from scripts.common.errors import UserError
from scripts.evaluate.cut_answers import CutAnswers

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in one process, the same prompts share a batch every time
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # one thread for each core of the job, not pinned
    "VLLM_NO_USAGE_STATS": "1",
}
"""Environment variables that vLLM reads."""

CPU_CACHE = 1_000_000_000
"""Bytes of the key-value cache on a CPU. On a GPU, vLLM uses the free memory."""


class VllmLM(VLLM):
    """lm-eval's vLLM model, for tasks with generated answers.

    Args:
        name: name of the benchmark, for error messages.
        at_once: most answers that are generated at once.
        processes: number of GPUs that share the weights.
        device: `cuda` or `cpu`.
        pretrained: model folder.
        dtype: precision of the weights.
        unused: arguments of other engines. vLLM chooses its batches itself and writes its own progress bar to the log.

    Raises:
        UserError: vLLM does not start, for example because memory is too small.
    """

    def __init__(
        self, *, name: str, at_once: int, processes: int, device: str, pretrained: str, dtype: str, **unused: Any
    ) -> None:
        os.environ.update(SETTINGS)
        self.at_once, self.halves, self.processes = at_once, False, 1
        try:
            super().__init__(
                pretrained=pretrained,
                dtype=dtype,
                seed=torch.initial_seed() % 2**31,
                tensor_parallel_size=processes,
                max_num_seqs=at_once,
                max_gen_toks=LONGEST_ANSWER,
                **({"enforce_eager": True, "kv_cache_memory_bytes": CPU_CACHE} if device == "cpu" else {}),
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"benchmarks.{name}.engine: vLLM does not start: {str(error).splitlines()[0]}") from error
        self.cut_answers = CutAnswers()
        self.set_cache_hook(self.cut_answers)

    def _model_generate(self, *args: Any, **kwargs: Any) -> Any:
        answers = super()._model_generate(*args, **kwargs)
        if kwargs.get("generate"):
            self.cut_answers.expect(answer.outputs[0].finish_reason == "length" for answer in answers)
        return answers
