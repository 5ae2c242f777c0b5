"""Score: how important each channel of a layer is. DANCE, appendix A. Pure functions; every term is a vector [c]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def min_max(values: Tensor) -> Tensor:
    """Scaled to [0, 1] over the last dimension; a constant vector becomes 0.

    >>> min_max(torch.tensor([2.0, 4.0, 3.0])), min_max(torch.ones(2))
    (tensor([0.0000, 1.0000, 0.5000]), tensor([0., 0.]))
    """
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    return (values - low) / (high - low + 1e-8)


def correlation_importance(activations: Tensor, weight: float = 1.0) -> Tensor:
    """I_corr = 1 - lambda_2 mean over the other channels of |R|, from activations [B,c] averaged over space.

    R is Pearson's correlation over the batch; a channel that does not vary is correlated with none.

    >>> correlation_importance(torch.tensor([[1.0, 2.0, 0.0], [3.0, 6.0, 0.0]]))
    tensor([0.5000, 0.5000, 1.0000])
    """
    centred = activations - activations.mean(0)
    length = centred.norm(dim=0)
    unit = torch.where(length > 1e-8, centred / length.clamp_min(1e-8), 0.0)
    absolute = (unit.T @ unit).abs().clamp_max(1)
    others = max(len(absolute) - 1, 1)
    return 1 - weight * (absolute.sum(1) - absolute.diagonal()) / others


def moving_average(old: Tensor, new: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) old + alpha new."""
    return (1 - alpha) * old + alpha * new


def score(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Score = sum_i lambda_i min_max(I_i), for the static, dynamic, feature and correlation terms."""
    return torch.stack([w * min_max(term) for w, term in zip(weights, terms, strict=True)]).sum(0)
