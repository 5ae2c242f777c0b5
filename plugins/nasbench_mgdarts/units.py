"""What is left of operations, filters and weights: counts, retention ratios, thresholds."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from nasbench_mgdarts.layers import Reduce, convolutions, kernels, vectors
from nasbench_mgdarts.network import SearchNet

#: A threshold begins so far below the least important unit that none is pruned at once.
MARGIN = 1e-3


def search_size(net: SearchNet) -> int:
    """Weights that are left in the operations: of convolutions, and of skips of stride 2.

    Stem, preprocessing, batch norms and heads are not counted. Filters that are masked take their weights along.
    """
    total = sum(int(mask.sum()) for conv in convolutions(net.cells) for mask in conv.live())
    reduces = [m for cell in net.cells_() for _, _, m in cell.named_operations() if isinstance(m, Reduce)]
    return total + sum(int(m.filters.mask.sum()) * cin(m) for m in reduces)


def cin(module: Reduce) -> int:
    """Input channels."""
    return next(c.weight.shape[1] for c in (module.even, module.odd) if c is not None)


def retention(net: SearchNet) -> dict[str, float | None]:
    """Shares that are left: of the operations of these cells, of the filters that the surviving operations began with,
    and of the weights in surviving filters (section V-E)."""
    operations = [left for cell in net.cells_() for left in cell.named_operations()]
    began = left = weights = whole = 0
    for cell in net.cells_():
        for vector in (v for _, _, module in cell.named_operations() for v in vectors(module)):
            began, left = began + cell.began, left + int(vector.mask.sum())
    for conv in convolutions(net.cells):
        masks = conv.live()
        whole, weights = whole + sum(m.numel() for m in masks), weights + sum(int(m.sum()) for m in masks)
    count = len(net.cells) * net.structures_()[0].alive.numel()
    return {
        "op": len(operations) / count,
        "filter": left / began if began else None,
        "weight": weights / whole if whole else None,
    }


def live_thresholds(net: SearchNet) -> dict[str, Tensor]:
    """The thresholds of what is left, by granularity, each a vector with gradients; empty ones are left out."""
    found: dict[str, list[Tensor]] = {"op": [], "filter": [], "weight": []}
    if "op" in net.search:
        for s in net.structures_():
            rows = s.alive.any(0, keepdim=True) if net.shared else s.alive
            found["op"].append(s.t_alpha[rows])
    for cell in net.cells_():
        for name, t, units in (("filter", cell.t_beta, vectors), ("weight", cell.t_omega, kernels)):
            if t is not None:  # where an operation's threshold is one for all edges, it counts once
                left = {(e % len(t), op - 1) for e, op, module in cell.named_operations() if units(module)}
                index = torch.tensor(sorted(left), dtype=torch.long).reshape(-1, 2)
                found[name].append(t[index[:, 0], index[:, 1]])
        if cell.t_input is not None:
            found["filter"].append(cell.t_input)
    return {name: torch.cat(values) for name, values in found.items() if values}


def convolves(module: Any) -> bool:
    """Whether an operation has filters."""
    return hasattr(module, "outputs")


@torch.no_grad()
def reset_thresholds(net: SearchNet, init: Literal["minimum", "zero"]) -> None:
    """Each threshold just below the smallest importance of the units that it is for, or 0."""
    for s in net.structures_():
        _set(s.t_alpha, s.importance.masked_fill(~s.alive, torch.inf), init)
    for cell in net.cells_():
        betas, omegas = (torch.full(net.structures_()[0].alive.shape, torch.inf) for _ in range(2))
        for e, op, module in cell.named_operations():
            gates, sizes = vectors(module), [w for w in live_weights(module) if len(w)]
            betas[e, op - 1] = min((float(v.importance[v.mask].min()) for v in gates), default=torch.inf)
            omegas[e, op - 1] = min((float(w.min()) for w in sizes), default=torch.inf)
        if cell.t_beta is not None:
            _set(cell.t_beta, betas, init)
        if cell.t_input is not None:
            least = [m.filters.importance[m.filters.mask].min() for m in cell.inputs()]
            _set(cell.t_input, torch.stack(least)[:, None], init)
        if cell.t_omega is not None:
            _set(cell.t_omega, omegas, init)


def live_weights(module: Any) -> list[Tensor]:
    """|w| of the weights that no mask of their own sets to zero, a vector for each kernel."""
    return [kernel.weight.detach()[kernel.mask > 0].abs() for kernel in kernels(module)]


def _set(threshold: Tensor, importance: Tensor, init: str) -> None:
    least = importance.reshape(len(importance), -1)
    if len(threshold) < len(least):  # one for all edges
        least = least.min(0, keepdim=True).values
    least = least.where(least.isfinite(), 0.0).reshape(threshold.shape)
    threshold.copy_((1 - MARGIN) * least if init == "minimum" else torch.zeros_like(least))
