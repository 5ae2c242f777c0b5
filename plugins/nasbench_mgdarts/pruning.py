"""Permanent pruning: what falls below its threshold, or, as a control, a fixed number; never below a floor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nasbench_mgdarts.layers import Filters, kernels
from nasbench_mgdarts.network import Granularity, SearchNet

#: One unit of a flat list of candidates: where it stands, and its importance.
Slot = tuple[int, int, int]


@torch.no_grad()
def prune(
    net: SearchNet,
    rates: Mapping[Granularity, float] | None = None,
    floors: Mapping[Granularity, float] | None = None,
) -> int:
    """Take away units for good, and say how many operations went.

    Adaptive without `rates`: every unit whose importance is not above its threshold (Algorithm 1). With rates: so
    many operations, and such shares of the filters and of the weights that there were, by lowest importance
    (Fig. 6 and 7). `floors` are shares of each granularity that stay in any case (Fig. 1 and 5).
    """
    floors = floors or {}
    pruned = prune_operations(net, None if rates is None else int(rates.get("op", 0)), floors.get("op", 0.0))
    if "filter" in net.search:
        prune_filters(net, None if rates is None else rates.get("filter", 0.0), floors.get("filter", 0.0))
    if "weight" in net.search:
        prune_weights(net, None if rates is None else rates.get("weight", 0.0), floors.get("weight", 0.0))
    return pruned


def prune_operations(net: SearchNet, count: int | None, floor: float = 0.0) -> int:
    """Drop operations; a node's last one stays, the most important of those that would have gone."""
    if "op" not in net.search:
        return 0
    slots: list[tuple[float, Slot]] = []
    for k, s in enumerate(net.structures_()):
        under = s.alive & (s.importance <= s.t_alpha) if count is None else s.alive
        slots += [(float(s.importance[e, o]), (k, e, o + 1)) for e, o in under.nonzero().tolist()]
    node_of = {edge: node for node, edges in enumerate(net.nodes) for edge in edges}
    into = {
        (k, node): int(s.alive[edges].sum())
        for k, s in enumerate(net.structures_())
        for node, edges in enumerate(net.nodes)
    }
    left = sum(into.values())
    least = floor * sum(s.alive.numel() for s in net.structures_())
    pruned = 0
    for _, (k, e, op) in sorted(slots):
        node = node_of[e]
        if into[k, node] > 1 and left > least and (count is None or pruned < count):
            net.drop(k, e, op)
            into[k, node], left, pruned = into[k, node] - 1, left - 1, pruned + 1
    return pruned


def prune_filters(net: SearchNet, share: float | None, floor: float = 0.0) -> None:
    """Mask filters; of every vector the most important one stays."""
    vectors = list(net.filters())
    went = []
    for vector, threshold in vectors:
        gone = vector.mask & (vector.importance <= threshold) if share is None else vector.mask.clone()
        gone[strongest(vector)] = False
        went.append(gone)
    masks = [vector.mask for vector, _ in vectors]
    keep_floor(went, [v.importance for v, _ in vectors], masks, share, floor)
    for (vector, _), gone in zip(vectors, went, strict=True):
        assert vector.alive is not None
        vector.alive[gone] = 0.0


def strongest(vector: Filters) -> int:
    """The most important filter that is left."""
    return int(vector.importance.masked_fill(~vector.mask, -1.0).argmax())


def prune_weights(net: SearchNet, share: float | None, floor: float = 0.0) -> None:
    """Mask weights of the operations' convolutions."""
    every, went, sizes = [], [], []
    for cell in net.cells_():
        for edge, op, module in cell.named_operations():
            threshold = cell.thresholds(edge, op).weights
            if threshold is None:
                continue
            for kernel in kernels(module):
                size, there = kernel.weight.abs(), kernel.mask > 0
                every.append(kernel)
                sizes.append(size)
                went.append(there & (size <= threshold) if share is None else there)
    keep_floor(went, sizes, [k.mask > 0 for k in every], share, floor)
    for kernel, gone in zip(every, went, strict=True):
        kernel.mask[gone] = 0.0


def keep_floor(
    went: list[Tensor], importance: list[Tensor], alive: list[Tensor], share: float | None, floor: float
) -> None:
    """Limit, in place, what goes to `share` of all units, and so that `floor` of all units stay; the least important
    ones go, each vector's compared with all others'."""
    if not went or (share is None and not floor):
        return
    flat = torch.cat([w.flatten() for w in went])
    values = torch.cat([i.flatten() for i in importance])
    total, left = len(flat), int(torch.cat([a.flatten() for a in alive]).sum())
    count = int(flat.sum()) if share is None else round(share * total)
    count = max(0, min(count, int(flat.sum()), left - round(floor * total)))
    order = values.masked_fill(~flat, torch.inf).argsort(stable=True)
    limited = torch.zeros_like(flat)
    limited[order[:count]] = True
    for mask, part in zip(went, limited.split([w.numel() for w in went]), strict=True):
        mask.copy_(part.view_as(mask))
