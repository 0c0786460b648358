"""Model FLOPs: those that a method needs, whatever the implementation spends (recomputed activations do not count).

Of one token, with N parameters that multiply (all but the embedding of the input; the head counts), L layers of
attention width d, and s tokens in its sequence:

- a forward pass: 2 N + 2 s d L (the causal half of 4 s d L),
- the backward pass: the same again for what flows back, and the same again for the gradients of weights that are
  trained: with adapters, N is left out of that third part and the adapters' own parameters come in.

That is 6 N for full training and 4 N with adapters (Kaplan et al., "Scaling laws for neural language models", 2020).
Forward passes without gradient (references, sampling) count too. Utilisation is FLOPs by seconds, by the peak of the
device in dense bfloat16.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Model FLOPs of a model's passes; see the module for the formula.

    Args:
        multiplying: parameters that multiply for each token, without adapters.
        adapters: parameters of the adapters; 0 when all weights are trained.
        attention: 2 d L.
    """

    multiplying: int
    adapters: int
    attention: int

    def of(self, tokens: float, attended: float, is_training: bool) -> float:
        """FLOPs of a pass over so many tokens, which attend to `attended` ones in all. Numbers, or tensors of them.

        `attended` is twice the sum of the tokens that each of them attends to: of whole sequences, the sum of their
        squared lengths.
        """
        forward = 2 * (self.multiplying + self.adapters) * tokens + self.attention * attended
        if not is_training:
            return forward
        return 2 * forward + 2 * (self.adapters or self.multiplying) * tokens + self.attention * attended
