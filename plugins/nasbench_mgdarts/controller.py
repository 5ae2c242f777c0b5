"""What the loss adds to cross-entropy, and how its weight lambda follows the pruning (the paper's code; the paper says
only that resource efficiency is regularised)."""

from __future__ import annotations

import torch
from nasbench_cells.darts import OPERATIONS, SKIP
from torch import Tensor

from nasbench_mgdarts.inverted_residual import InvertedResidual
from nasbench_mgdarts.layers import Conv, Filters, Reduce, SepConv
from nasbench_mgdarts.network import Cell, SearchNet
from nasbench_mgdarts.units import live_thresholds


def operation_regulariser(net: SearchNet, reg: float = 1.0, mu: float = 0.0) -> Tensor:
    """R_ops: for every operation o into a node v log(1 + n_v s(alpha_o) / sum_v s(alpha)) (reg + mu cost_o)."""
    total = next(net.parameters()).new_zeros(())
    if "op" not in net.search:
        return total
    for cell in net.cells_():
        structure = net.structures_()[net.kind_of(cell)]
        s, alive = structure.alpha.sigmoid() * structure.alive, structure.alive
        weight = torch.full_like(s, reg)
        if mu:
            costs = [(e, op, cost(cell, op, module)) for e, op, module in cell.named_operations()]
            edges, ops, values = zip(*costs, strict=True)
            weight = weight.index_put((torch.tensor(edges), torch.tensor(ops) - 1), mu * torch.stack(values), True)
        for rows in net.nodes:
            share = s[rows] * alive[rows].sum() / s[rows].sum()
            total = total + (torch.log1p(share) * weight[rows]).sum()
    return total


def cost(cell: Cell, op: int, module: object) -> Tensor:
    """Millions of weights of an operation, each filter's weighted by log(1 + n s(beta) / sum s(beta))."""
    zero = next(cell.parameters()).new_zeros(())
    if isinstance(module, InvertedResidual):
        return zero + module.cost(filter_weight(module.filters)) / 1e6
    if op == SKIP:
        return zero + (cell.shape.width**2 / 1e6 if isinstance(module, Reduce) else 0.0)
    if "conv" not in OPERATIONS[op]:
        return zero
    parts = (module.first, module.second) if isinstance(module, SepConv) else (module,)
    total, before = zero, None
    for part in parts:
        assert isinstance(part, Conv)
        weight = filter_weight(part.filters)
        depth = part.depth.mask.flatten(1).sum(1)
        total = total + (depth if before is None else depth * before).sum()
        point = part.point.mask.flatten(1)
        total = total + ((point if before is None else point * before) * weight[:, None]).sum()
        before = weight
    return total / 1e6


def filter_weight(filters: Filters) -> Tensor:
    """log(1 + n s(beta) / sum s(beta)) of the n filters that are left [width], 0 for the others; log 2 if all equal."""
    mask = filters.mask
    s = (torch.ones_like(filters.norm.weight) if filters.beta is None else filters.beta.sigmoid()) * mask
    return torch.log1p(mask.sum() * s / s.sum())


def threshold_regulariser(net: SearchNet) -> Tensor:
    """R_thr: the sum of exp(-t) over the thresholds of what is left, which pushes them up."""
    zero = next(net.parameters()).new_zeros(())
    return torch.stack([zero, *(torch.exp(-t).sum() for t in live_thresholds(net).values())]).sum()


class Controller:
    """lambda: 0 at first; up after a pruning event that took too few operations, down after one that took many."""

    CAP = 100.0

    def __init__(self, lambda0: float, c0: float, low: int, high: int, share: float) -> None:
        """lambda may grow while the task's loss is above `share` of lambda R_ops: 1 in a stage, 0.5 in fine-tuning."""
        self.lambda0, self.c0, self.low, self.high, self.share = lambda0, c0, low, high, share
        self.value, self.step = 0.0, lambda0

    def after(self, pruned: int, loss: float, regulariser: float) -> None:
        """React to a pruning event that took so many operations, given the last loss and R_ops."""
        cap = self.value if loss < self.share * self.value * regulariser else self.CAP
        if pruned >= self.high:
            self.step, self.value = self.lambda0, self.value / self.c0
        elif pruned < self.low and self.value != cap:
            self.step *= self.c0**2
            self.value = min(self.value + self.step, cap)

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value, "step": self.step}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.value, self.step = state["value"], state["step"]
