"""vLLM, as lm-eval runs it. It needs other packages than the rest, so it has an environment of its own."""

import os
from typing import Any

import torch
from lm_eval.models.vllm_causallms import VLLM

from scripts.common.errors import UserError
from scripts.evaluate.engines import LONGEST_ANSWER

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # scheduled in this process, the same prompts share a batch each time
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as many threads as the job has cores, wherever they are
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM reads from the environment."""

CPU_CACHE = 1_000_000_000
"""Bytes for keys and values on a CPU; on a GPU vLLM takes what is free."""


class VllmLM(VLLM):
    """lm-eval's vLLM model, for tasks that write answers.

    Args:
        name: the benchmark, for messages.
        at_once: answers that are written at once, at most.
        processes: GPUs over which the weights are spread.
        device: `cuda` or `cpu`.
        unused: what other engines take: vLLM batches by itself, and its own bar in the log tells how far it is.

    Raises:
        UserError: vLLM does not start, such as for want of memory.
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
