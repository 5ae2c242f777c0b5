"""From a gate's logits to a mask of exactly k channels: DANCE, section 2.2. Pure functions over the last dimension."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Combine = Literal["product", "paper_literal", "logit_add"]
Sampler = Literal["gumbel_topk", "topk", "bernoulli_fix"]


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Gumbel(0, 1) noise in the shape, precision and place of a tensor, drawn on the CPU."""
    tiny = torch.finfo(like.dtype).tiny
    uniform = torch.rand(like.shape, generator=generator, dtype=like.dtype).clamp_min(tiny)
    return -(-uniform.log()).clamp_min(tiny).log().to(like.device)


def relax(logits: Tensor, noise: Tensor, tau: float) -> Tensor:
    """softmax((g + eps) / tau): shares of the channels, adding up to 1."""
    return torch.softmax((logits + noise) / tau, -1)


def combine(shares: Tensor, score: Tensor, rule: Combine, kappa: float = 1.0) -> Tensor:
    """The sampling probabilities p of the channels, adding up to 1, from their shares and their Score.

    `product`: in proportion to share x Score. `paper_literal`: softmax(share x Score), which is nearly uniform,
    since all entries lie between 0 and 1. `logit_add`: softmax(log share + kappa Score).

    >>> combine(torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.0, 1.0, 1.0]), "product").round(decimals=3)
    tensor([0.0000, 0.5000, 0.5000])
    """
    if rule == "product":
        p = shares * (score + 1e-6)
        return p / p.sum(-1, keepdim=True)
    if rule == "paper_literal":
        return torch.softmax(shares * score, -1)
    return torch.softmax(shares.clamp_min(torch.finfo(shares.dtype).tiny).log() + kappa * score, -1)


def top(values: Tensor, k: int) -> Tensor:
    """The mask of the k largest, 1 or 0 in the values' precision; of equals the first.

    >>> top(torch.tensor([0.3, 0.9, 0.3, 0.1]), 2)
    tensor([1., 1., 0., 0.])
    """
    best = values.detach().argsort(dim=-1, descending=True, stable=True)[..., :k]
    return torch.zeros_like(values).scatter(-1, best, 1.0)


def sample(p: Tensor, k: int, sampler: Sampler, generator: torch.Generator) -> Tensor:
    """A mask of exactly k channels. The paper's `BernoulliSample` of exactly C_l can be read three ways.

    `gumbel_topk`: without replacement in proportion to p. `topk`: the k most likely, no chance. `bernoulli_fix`:
    each with probability min(1, k p); then the least likely drawn are dropped, or the most likely others added.
    """
    p = p.detach()
    if sampler == "gumbel_topk":
        return top(p.clamp_min(torch.finfo(p.dtype).tiny).log() + gumbel(p, generator), k)
    if sampler == "bernoulli_fix":
        drawn = torch.rand(p.shape, generator=generator, dtype=p.dtype).to(p.device) < k * p
        return top(drawn + p, k)
    return top(p, k)


def soft_gates(p: Tensor, k: int) -> Tensor:
    """min(1, k p), what a channel is kept with: the relaxation of a mask of k."""
    return (k * p).clamp(0, 1)


def straight_through(mask: Tensor, soft: Tensor) -> Tensor:
    """The mask, bit for bit, with the gradient of the soft gates."""
    return mask + (soft - soft.detach())
