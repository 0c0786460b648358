"""Model FLOPs: the operations that a method needs, not those that its implementation spends on recomputed activations.

FLOPs of one token, with N parameters that are multiplied (all except the input embedding; the LM head counts), L layers
with attention width d, and s tokens in its sequence:

- forward pass: 2 N + 2 s d L (the causal half of 4 s d L),
- backward pass: the same again for the gradients of activations, and the same again for the gradients of trained
  weights. With adapters, this last part counts the parameters of the adapters instead of N.

This makes 6 N for full training and 4 N with adapters (Kaplan et al., "Scaling laws for neural language models", 2020).
Forward passes without gradient (reference models, sampling) count as well. Utilisation (MFU) is FLOPs per second
divided by the peak of the device in dense bfloat16.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Model FLOPs of the passes of one model; the module docstring has the formula.

    Args:
        multiplying: parameters that are multiplied for each token, without adapters.
        adapters: parameters of the adapters; 0 if all weights are trained.
        attention: 2 d L.
    """

    multiplying: int
    adapters: int
    attention: int

    def of(self, tokens: float, attended: float, is_training: bool) -> float:
        """FLOPs of one pass; arguments and result may be numbers or tensors.

        Args:
            tokens: number of tokens.
            attended: twice the number of tokens that each token attends to, summed over all tokens. For complete
                sequences, this is the sum of their squared lengths.
            is_training: with a backward pass.
        """
        forward = 2 * (self.multiplying + self.adapters) * tokens + self.attention * attended
        if not is_training:
            return forward
        return 2 * forward + 2 * (self.adapters or self.multiplying) * tokens + self.attention * attended
