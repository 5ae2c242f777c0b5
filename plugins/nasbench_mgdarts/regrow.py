"""Regrowing pruned operations: equations (6) to (10)."""

from __future__ import annotations

import random
from collections import Counter
from typing import Literal

import torch
from torch import Tensor

from nasbench_mgdarts.network import SearchNet

#: A cell's structure and an operation: what a quota is for.
Kind = tuple[int, int]


@torch.no_grad()
def follow_momentum(net: SearchNet, gamma: float) -> None:
    """Equation (6), after a backward pass: the moving average of the loss's gradient with respect to s(alpha)."""
    for s in net.structures_():
        if s.alpha.grad is not None:
            slope = s.importance * (1 - s.importance)  # of the sigmoid
            slope.clamp_min_(torch.finfo(slope.dtype).tiny)  # at a large alpha both it and the gradient round to 0
            s.momentum.mul_(gamma).add_(s.alpha.grad / slope, alpha=1 - gamma)


def potentials(values: Tensor, alive: Tensor) -> list[float]:
    """Equations (7) and (8) for each of a cell's operations: the mean of |values| [edges,ops] over those left.

    An operation with no survivor gets half of the smallest, as in the paper's code.
    """
    sums, counts = (values.abs() * alive).sum(0), alive.sum(0)
    means = [float(s / c) for s, c in zip(sums, counts, strict=True) if c]
    spare = min(means, default=0.0) / 2
    return [float(s / c) if c else spare for s, c in zip(sums, counts, strict=True)]


def shares(net: SearchNet) -> dict[Kind, float]:
    """What share of a regrowth goes to each operation of each cell; they add up to 1.

    A cell's share times an operation's share inside it, both the mean of normalised magnitude and normalised momentum
    (equation (9) has no normalisation, so its quotas would not add up).
    """
    by_cell = []
    for s in net.structures_():
        by_cell.append([potentials(values, s.alive) for values in (s.importance, s.momentum)])
    cells = mixed([[sum(kinds[i]) for kinds in by_cell] for i in range(2)])
    inside = [mixed(kinds) for kinds in by_cell]
    return {(k, op + 1): cells[k] * inside[k][op] for k in range(len(cells)) for op in range(len(inside[k]))}


def mixed(parts: list[list[float]]) -> list[float]:
    """The mean of two lists of numbers, each normalised to a sum of 1; one that is all zero counts as equal."""
    normal = [[v / sum(part) for v in part] if sum(part) > 0 else [1 / len(part)] * len(part) for part in parts]
    return [sum(pair) / len(pair) for pair in zip(*normal, strict=True)]


def quotas(total: int, share: dict[Kind, float], free: dict[Kind, int]) -> dict[Kind, int]:
    """min(total, free slots) operations in proportion to `share`, by largest remainder; what a kind has no free slot
    for goes to the others."""
    found = dict.fromkeys(share, 0)
    rest = min(total, sum(free.values()))
    while rest:
        room = {kind: free[kind] - found[kind] for kind in share if found[kind] < free[kind]}
        for kind, count in apportioned(rest, {kind: share[kind] for kind in room}).items():
            given = min(count, room[kind])
            found[kind], rest = found[kind] + given, rest - given
    return found


def apportioned(total: int, share: dict[Kind, float]) -> dict[Kind, int]:
    """`total` in whole numbers in proportion to `share`: rounded down, the rest to the largest remainders."""
    scale = sum(share.values())
    exact = {kind: total * (s / scale if scale else 1 / len(share)) for kind, s in share.items()}
    found = {kind: int(value) for kind, value in exact.items()}
    ranked = sorted(share, key=lambda kind: found[kind] - exact[kind])
    for kind in ranked[: total - sum(found.values())]:
        found[kind] += 1
    return found


def drawn(total: int, share: dict[Kind, float], free: dict[Kind, int], rng: random.Random) -> dict[Kind, int]:
    """The paper's code: every one of `total` is drawn from `share`; a draw that finds no free slot is made again."""
    found = Counter[Kind]()
    for _ in range(min(total, sum(free.values()))):
        open_ = [kind for kind in share if found[kind] < free[kind]]
        found[rng.choices(open_, [share[kind] + 1e-12 for kind in open_])[0]] += 1
    return dict(found)


def regrow(
    net: SearchNet, total: int, rng: random.Random, how: Literal["largest_remainder", "multinomial"]
) -> tuple[SearchNet, list[tuple[int, int, int]]]:
    """A net with up to `total` more operations, and which: (structure, edge, operation).

    Their weights are fresh, at the cell's present widths, beta is 0, nothing is masked; alpha is what it was when they
    were pruned, thresholds stay.
    """
    share = shares(net)
    slots: dict[Kind, list[int]] = {kind: [] for kind in share}
    for k, s in enumerate(net.structures_()):
        for e, o in (~s.alive).nonzero().tolist():
            slots[k, o + 1].append(e)
    free = {kind: len(edges) for kind, edges in slots.items()}
    quota = quotas(total, share, free) if how == "largest_remainder" else drawn(total, share, free, rng)
    new = [(k, e, op) for (k, op), count in sorted(quota.items()) for e in sorted(rng.sample(slots[k, op], count))]
    return net.with_operations(new), new
