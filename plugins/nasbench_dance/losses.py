"""What the second stage adds to cross-entropy. DANCE, appendix C names the terms; formulas after the official code."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sparsity(mask: Tensor, ratio: float) -> Tensor:
    """L_sp = |mean(m) - r|, r the keep ratio. (The code compares with the share pruned, equal only at 0.5.)"""
    return (mask.mean() - ratio).abs()


def diversity(soft: Tensor) -> Tensor:
    """L_div = minus the mean binary entropy of the soft gates; of hard ones it would always be 0.

    >>> diversity(torch.tensor([0.5, 0.5])).round(decimals=4)
    tensor(-0.6931)
    """
    p = soft.clamp(1e-6, 1 - 1e-6)
    return (p * p.log() + (1 - p) * (1 - p).log()).mean()


def correlation(features: Tensor) -> Tensor:
    """L_cor = mean |N^T N - I|, N the features [B,c] with columns of length 1. (The code's diagonal is not 1.)

    >>> correlation(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    tensor(0.)
    """
    unit = F.normalize(features, dim=0)
    return (unit.T @ unit - torch.eye(features.shape[1], dtype=unit.dtype, device=unit.device)).abs().mean()


def distance(mask: Tensor, past: Tensor) -> Tensor:
    """L_stab and L_cons: mean squared distance of a mask [c] from what masks were before [c]."""
    return F.mse_loss(mask, past)
