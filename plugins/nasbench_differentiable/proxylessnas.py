"""ProxylessNAS: Cai, Zhu and Han, Direct Neural Architecture Search on Target Task and Hardware, ICLR 2019."""

from __future__ import annotations

import random
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PrivateAttr
from torch import Tensor

from nasbench import Method, Mixture, Run, hookimpl
from nasbench.data import Batch
from nasbench_differentiable.relaxation import Relaxed, gradient, gumbel, loss, validation_batch


class ProxylessNAS(Relaxed, Method):
    """Binary gates drawn from p = softmax(alpha) open one path for each decision; the weights see that path alone.
    alpha sees two drawn paths, one of them open, and the gradient of a gate goes to its probability (Eq. 3, 4); then
    the two are shifted so that no other probability changes. The expected cost joins the loss (Eq. 6, 7)."""

    cost: Literal["madds", "params"] = "madds"
    """What the expected cost counts."""
    cost_weight: float = Field(0.0, ge=0)
    """What the expected cost weighs in alpha's loss (lambda_2), as a share of the cost at equal probabilities."""
    arch_lr: float = Field(0.006, gt=0)
    """Adam's rate for the architecture parameters."""
    arch_beta1: float = Field(0.0, ge=0, lt=1)
    """Adam's beta1 for the architecture parameters, 0 so that a path that was not drawn stays; beta2 is 0.999."""
    arch_weight_decay: float = Field(0.0, ge=0)
    """L2 decay of the architecture parameters."""
    _costs: list[Tensor] = PrivateAttr(default_factory=list)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        refused = super().refuse(run)
        if refused is None and self.cost_weight:
            found = option_costs(run, self.cost)
            if found is None:
                return (
                    f"proxylessnas.cost_weight = {self.cost_weight} needs decisions whose {self.cost} add up, and "
                    f"those of {run.recipe.space} do not; set it to 0."
                )
            self._costs = found
        return refused

    def mixture(self, run: Run, purpose: str) -> Mixture:
        """One open path of each decision, drawn with its probability; the others are exactly 0."""
        drawn = zip(self._alphas, gumbel(run, purpose, self._alphas), strict=True)
        return [F.one_hot((alpha.detach() + noise).argmax(), len(alpha)).to(alpha) for alpha, noise in drawn]

    def pairs(self, run: Run) -> list[Tensor]:
        """Two paths of each decision, int64 [2], drawn by their probabilities without replacement."""
        drawn = zip(self._alphas, gumbel(run, "pairs", self._alphas), strict=True)
        return [(alpha.detach() + noise).topk(min(2, len(alpha))).indices for alpha, noise in drawn]

    def gates(self, run: Run, pairs: list[Tensor]) -> Mixture:
        """The gates of two paths each, open with its probability among the two, to which the gradient goes."""
        drawn = zip(self._alphas, pairs, gumbel(run, "gates", self._alphas), strict=True)
        return [binary(alpha, pair, noise[pair]) for alpha, pair, noise in drawn]

    def expected_cost(self, pairs: list[Tensor]) -> Tensor:
        """The expected cost of softmax(alpha), over that at equal probabilities, a scalar; a
        function of how the drawn two share their probability."""
        if not self.cost_weight:
            return self._alphas[0].new_zeros(())
        expected = []
        for alpha, pair, cost in zip(self._alphas, pairs, self._costs, strict=True):
            p = alpha.detach().softmax(0)
            shared = alpha[pair].softmax(0) * p[pair].sum()
            expected.append(p.index_put((pair,), shared) @ cost.to(p))
        return torch.stack(expected).sum() / sum(float(cost.mean()) for cost in self._costs)

    def architecture_gradient(self, run: Run, batch: Batch) -> list[Tensor] | None:
        """Moves alpha by itself, since what comes after Adam's step is a part of the method."""
        pairs, before = self.pairs(run), [a.detach().clone() for a in self._alphas]
        value = loss(run, validation_batch(run), self.gates(run, pairs))
        slopes = gradient(value + self.cost_weight * self.expected_cost(pairs), self._alphas)
        for alpha, slope in zip(self._alphas, slopes, strict=True):
            alpha.grad = slope
        self._optimizer.step()
        for alpha, old, pair in zip(self._alphas, before, pairs, strict=True):
            alpha.data[pair] += old[pair].logsumexp(0) - alpha.data[pair].logsumexp(0)
        return None


def binary(alpha: Tensor, pair: Tensor, noise: Tensor) -> Tensor:
    """Gates [options]: 1 for the path of the pair that wins with its Gumbel noise [2], and 0 for the other, to within
    the smallest number, so that it is computed and its gradient known. Backwards they are the pair's softmax."""
    share = alpha[pair].softmax(0)
    tiny = torch.finfo(torch.float32).tiny
    open_ = F.one_hot((alpha.detach()[pair] + noise).argmax(), len(pair)).to(alpha).clamp_min(tiny)
    return torch.zeros_like(alpha).index_put((pair,), open_ + (share - share.detach()))


def option_costs(run: Run, name: str) -> list[Tensor] | None:
    """What each option of each relaxed decision adds to a cost, float64; None where costs do not add up."""
    space = run.space.root
    if tuple(space.relaxed) != space.decisions:
        return None
    base = tuple(options[0] for options in space.options)
    zero = space.cost(base)[name]
    added = [[space.cost(space.replace(base, d, o))[name] - zero for o in os] for d, os in enumerate(space.options)]
    for seed in range(20):
        arch = space.sample(random.Random(seed))
        if space.cost(arch)[name] != zero + sum(cost[o] for cost, o in zip(added, arch, strict=True)):
            return None
    fixed = zero / len(added)
    return [torch.tensor(costs, dtype=torch.float64) + fixed for costs in added]
