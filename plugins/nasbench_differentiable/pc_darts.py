"""PC-DARTS: Xu et al., Partial Channel Connections for Memory-Efficient Architecture Search, ICLR 2020."""

from __future__ import annotations

from collections import defaultdict

import torch
from pydantic import Field
from torch import Tensor

from nasbench import Method, Mixture, Run, hookimpl
from nasbench.data import Batch
from nasbench_differentiable.relaxation import Relaxed


class PCDARTS(Relaxed, Method):
    """One channel in `share` goes through an edge's operations (Eq. 2), the edges into a node are weighed by a softmax
    of their own (Eq. 3), and alpha waits until the weights have been trained a while."""

    share: int = Field(4, ge=2)
    """K: one channel in K goes through the operations."""
    edge_normalization: bool = True
    """Weigh the edges into a node by beta as well."""
    warmup: int = Field(15, ge=0)
    """Epochs for which only the weights are trained."""
    arch_lr: float = Field(6e-4, gt=0)
    """Adam's rate for alpha and beta."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if not hasattr(run.space, "partial_supernet"):
            return f"pc-darts sends a part of the channels through an edge, and {run.space.name} has no such supernet."
        if not all("<-" in name for name in run.space.relaxed):
            return f"pc-darts weighs the edges into a node, and the decisions of {run.space.name} are no edges."
        return super().refuse(run)

    def network(self, run: Run) -> torch.nn.Module:
        net: torch.nn.Module = run.space.partial_supernet(self.share)  # type: ignore[attr-defined]
        return net

    def shapes(self, run: Run) -> list[int]:
        return super().shapes(run) + [len(edges) for edges in edges_by_node(run)]

    def mixture(self, run: Run, purpose: str) -> Mixture:
        edges = len(run.space.relaxed)
        weights = [alpha.softmax(0) for alpha in self._alphas[:edges]]
        if self.edge_normalization:
            for into, beta in zip(edges_by_node(run), self._alphas[edges:], strict=True):
                for e, share in zip(into, beta.softmax(0), strict=True):
                    weights[e] = weights[e] * share
        return weights

    def architecture_gradient(self, run: Run, batch: Batch) -> list[Tensor] | None:
        return None if run.epoch < self.warmup else super().architecture_gradient(run, batch)

    def strength(self, run: Run) -> Mixture:
        return [weights.detach() for weights in self.mixture(run, "select")]


def edges_by_node(run: Run) -> list[list[int]]:
    """The relaxed decisions, grouped by the node that they lead to."""
    found: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(run.space.relaxed):
        found[name.partition("<-")[0]].append(i)
    return list(found.values())
