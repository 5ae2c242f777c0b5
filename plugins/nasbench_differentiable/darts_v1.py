"""DARTS, first order: Liu, Simonyan and Yang, DARTS: Differentiable Architecture Search, ICLR 2019."""

from __future__ import annotations

from nasbench import Method
from nasbench_differentiable.relaxation import Relaxed


class DARTSV1(Relaxed, Method):
    """Every edge is the softmax-weighted sum of its operations (Eq. 2, `Mixed.mixture`); alpha follows the validation
    loss at the present weights (Algorithm 1 with xi = 0, `Relaxed`), the weights the training loss."""
