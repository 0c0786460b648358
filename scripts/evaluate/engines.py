"""Engines that answer lm-eval's prompts: its Hugging Face model, the same with continuous batching, and vLLM."""

import math
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from lm_eval.models.huggingface import HFLM
from transformers import ContinuousBatchingConfig, GenerationConfig

from scripts.common.config.benchmark import LONGEST_ANSWER
from scripts.common.console import Progress, say
from scripts.common.errors import UserError
from scripts.evaluate.cut_answers import CutAnswers

Answer = TypeVar("Answer")

PAGE = 32
"""Tokens in one page of the key-value cache. The unused part of an answer's last page is wasted."""

PREFILL = 2048
"""Most tokens in one forward pass while prompts are processed."""

ONEDNN_REFUSES = "could not create a primitive"
"""oneDNN's error if it cannot allocate memory for a kernel. accelerate only knows the messages of allocators."""


class SharingLM(HFLM):
    """lm-eval's Hugging Face model with progress lines, automatic batch sizes, and requests shared by processes.

    If several processes share a job, all of them build the same prompts and each answers a part of them. With lm-eval's
    own way of sharing, the few-shot examples would depend on the number of processes, and a process without a question
    would fail.

    Args:
        name: name of the benchmark, for error messages.
        label: label of the progress lines.
        at_once: items in one forward pass.
        halves: whether to halve the batch if it does not fit into memory.
        processes: number of processes that share the requests.
        given: arguments of lm-eval's model.
    """

    def __init__(
        self, *, name: str, label: str, at_once: int, halves: bool = False, processes: int = 1, **given: Any
    ) -> None:
        super().__init__(batch_size=at_once, **given)
        self.name, self.at_once, self.halves, self.processes = name, at_once, halves, processes
        self.progress, self.done = Progress(label, 0, "prompts"), 0
        self.cut_answers = CutAnswers()
        self.set_cache_hook(self.cut_answers)
        accelerator = getattr(self, "accelerator", None)
        joined = accelerator.num_processes if accelerator else 1
        if joined != processes:
            raise RuntimeError(f"expected {processes} processes to share the questions, found {joined}")
        self._rank, self._world_size = 0, 1  # so that lm-eval does not split the requests itself

    @property
    def max_gen_toks(self) -> int:
        return LONGEST_ANSWER

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        return self._share(requests, partial(super().generate_until, disable_tqdm=disable_tqdm))

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self._share(requests, partial(super().loglikelihood, disable_tqdm=disable_tqdm))

    def _share(self, requests: list[Any], answer: Callable[[list[Any]], list[Answer]]) -> list[Answer]:
        """Answer all requests. Each process computes a part of the answers, and all of them get all answers."""
        if self.processes == 1:
            return self._fit(requests, answer)
        rank = torch.distributed.get_rank()
        # A contiguous part, so that the choices of a question stay together.
        first, after = (len(requests) * part // self.processes for part in (rank, rank + 1))
        shares: list[list[Answer]] = [[] for _ in range(self.processes)]
        torch.distributed.all_gather_object(shares, self._fit(requests[first:after], answer))
        cut: list[dict[str, bool]] = [{} for _ in range(self.processes)]
        torch.distributed.all_gather_object(cut, self.cut_answers.by_prompt)
        self.cut_answers.by_prompt = {prompt: is_cut for share in cut for prompt, is_cut in share.items()}
        return [one for share in shares for one in share]

    def _fit(self, requests: list[Any], answer: Callable[[list[Any]], list[Answer]]) -> list[Answer]:
        """Answer requests in batches that fit into memory.

        Raises:
            UserError: a single item does not fit, or the batch does not fit and may not be halved.
        """
        while requests:
            self.progress.total, self.done = len(requests), 0
            self.batch_size_per_gpu = self._batch_of(requests)
            try:
                return list(answer(requests))
            except RuntimeError as error:
                if not should_reduce_batch_size(error) and ONEDNN_REFUSES not in str(error):
                    raise
            complaint = f"{self.at_once} items at once do not fit into memory"
            if not self.halves or self.at_once == 1:
                remedy = "lower it, or set it to auto" if self.at_once > 1 else "shorten them, or request more memory"
                raise UserError(f"benchmarks.{self.name}.batch_size: {complaint}; {remedy}")
            self.at_once //= 2
            say(f"{self.progress.label}: {complaint}; continuing with {self.at_once}")
            clear_device_cache(garbage_collection=True)
        return []

    def _batch_of(self, requests: list[Any]) -> int:
        """Number of requests that lm-eval passes to the model in one batch."""
        return self.at_once

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> Any:
        # Choices that differ only in their last token share a forward pass.
        self.progress.total = len({tuple(context + choice[:-1]) for _, context, choice in requests})
        return super()._loglikelihood_tokens(requests, *args, **kwargs)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **kwargs: Any) -> Any:
        written = self._write(context, max_length, stop, **kwargs)
        answers = written[:, context.shape[1] :]
        reached = written.shape[1] == max_length
        self.cut_answers.expect(reached and not self._ends(answer, stop) for answer in answers)
        return written

    def _write(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        """Prompts, shape (prompts, longest), followed by their answers: at most `max_length` tokens in a row."""
        written: torch.Tensor = self._count(context, super()._model_generate(context, max_length, stop, **kwargs))
        return written

    def _ends(self, answer: torch.Tensor, stop: list[str]) -> bool:
        """Whether an answer contains an end of turn, padding or a stop sequence."""
        ends = self.model.generation_config.eos_token_id
        ends = {self.tokenizer.pad_token_id, *(ends if isinstance(ends, list) else [ends])}
        written = self.tok_decode(answer)
        return not ends.isdisjoint(answer.tolist()) or any(text in written for text in stop)

    def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
        return self._count(inps, super()._model_call(inps, *args, **kwargs))

    def _count(self, batch: Any, result: Any) -> Any:
        self.done += batch.shape[0]
        self.progress.update(min(self.done, self.progress.total - 1))
        return result


class ContinuousLM(SharingLM):
    """The same with transformers' continuous batching: when an answer ends, the next prompt takes its place.

    An answer continues to its end of turn or to the maximum length. lm-eval then cuts it at the first stop sequence.
    """

    def _batch_of(self, requests: list[Any]) -> int:
        return len(requests)  # the manager decides how many of them run at once

    def _write(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        """Prompts, shape (prompts, longest), followed by their answers and padded to (prompts, max_length)."""
        sampling = dict(kwargs)
        mask = sampling.pop("attention_mask").bool()
        prompts = [row[kept].tolist() for row, kept in zip(context, mask, strict=True)]
        longest, padding = context.shape[1], self.tokenizer.pad_token_id
        if not sampling.get("do_sample") and not sampling.get("temperature"):
            sampling = {"do_sample": False}
        generation = GenerationConfig(
            max_new_tokens=max_length - longest,
            eos_token_id=self.model.generation_config.eos_token_id,
            pad_token_id=padding,
            **sampling,
        )
        # These sizes do not depend on the free memory, so the same prompts share a batch every time.
        batching = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=self.at_once * math.ceil(max_length / PAGE) + 1,
            max_requests_per_batch=self.at_once,
            max_batch_tokens=max(PREFILL, self.at_once),
            seed=torch.initial_seed() % 2**31,
        )
        manager = self.model.init_continuous_batching(generation, batching)
        # Added before the start, so that the first batch does not depend on timing.
        names = manager.add_requests(prompts)
        answers: dict[str, list[int]] = {}
        try:
            manager.start()
            while len(answers) < len(prompts):
                result = manager.get_result(timeout=1)
                if result is None and not manager.is_running():
                    raise RuntimeError("continuous batching ended before all prompts were answered")
                if result is not None and result.error is not None:
                    raise RuntimeError(str(result.error))
                if result is not None:
                    answers[result.request_id] = result.generated_tokens
                    self._count(context[:1], None)
        finally:
            manager.stop(block=True, hard_stop=True)
        written = torch.full((len(prompts), max_length), padding)
        written[:, :longest] = context
        for row, name in enumerate(names):
            written[row, longest : longest + len(answers[name])] = torch.tensor(answers[name])
        return written


@contextmanager
def bounded_memory(limit: int) -> Iterator[None]:
    """Limit the data memory of this process to `limit` bytes, so that too large an allocation raises an error.

    Without the limit, the kernel would kill the process.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def find_engine(name: str) -> Callable[..., Any]:
    """The model class of an engine, by its name in the configuration."""
    if name == "vllm":
        from scripts.evaluate.vllm_engine import VllmLM  # its imports exist only in its own environment

        return VllmLM
    return {"hf": SharingLM, "continuous": ContinuousLM}[name]
