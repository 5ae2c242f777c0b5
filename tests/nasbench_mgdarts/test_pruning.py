"""Pruning, regrowing, lambda."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_mgdarts.controller import Controller
from nasbench_mgdarts.final import nodes_with_input
from nasbench_mgdarts.network import SearchNet
from nasbench_mgdarts.pruning import prune
from nasbench_mgdarts.regrow import drawn, follow_momentum, potentials, quotas, regrow, shares
from nasbench_mgdarts.units import reset_thresholds, retention, search_size

from tests.nasbench_mgdarts.conftest import Net, images


def shaken(n: SearchNet, seed: int = 0, size: float = 0.1) -> SearchNet:
    """Random alphas, betas and weights, so that about half of all operations and filters are below their thresholds."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in n.named_parameters():
            if name.rpartition(".")[2] in ("alpha", "beta"):
                p.add_(size * torch.randn(p.shape, generator=rng, dtype=p.dtype))
    return n


# ---------------------------------------------------------------------- pruning


@pytest.mark.invariant("mg-darts", 7)
def test_what_is_below_its_threshold_goes_for_good(net: Net) -> None:
    n = shaken(net())
    below = [s.importance <= s.t_alpha for s in n.structures_()]
    total = sum(int(b.sum()) for b in below)
    assert prune(n) == total > 50
    assert all(torch.equal(s.alive, ~b) for s, b in zip(n.structures_(), below, strict=True))
    for cell, s in zip(n.cells_(), n.structures_(), strict=True):
        assert {(e, op) for e, op, _ in cell.named_operations()} == {(e, o + 1) for e, o in s.alive.nonzero().tolist()}
    left = retention(n)
    reset_thresholds(n, "minimum")  # a new stage
    assert prune(n) == 0
    assert retention(n) == left


@pytest.mark.invariant("mg-darts", 7)
def test_counts_never_rise(net: Net) -> None:
    n = net()
    sizes = []
    for seed in range(4):
        prune(shaken(n, seed))
        sizes.append((search_size(n), *retention(n).values()))
    ops = [size[1] for size in sizes]
    assert sorted(sizes, key=lambda s: -s[0]) == sizes
    assert sorted(ops, reverse=True) == ops
    assert len(set(ops)) > 2


@pytest.mark.invariant("mg-darts", 8)
@pytest.mark.parametrize("granularity", [{"op"}, {"op", "filter", "weight"}])
def test_every_node_keeps_an_operation_the_most_important_one(net: Net, granularity: set[Any]) -> None:
    n = net(search=frozenset(granularity))
    with torch.no_grad():
        for s in n.structures_():
            s.t_alpha.fill_(1.0)
            s.alpha[1, 4] = 3.0
    assert prune(n) == 3 * 98 - 3 * 4
    assert nodes_with_input(n)
    assert all(s.alive[1, 4] and s.alive.sum() == 4 for s in n.structures_())
    assert n(images()).isfinite().all()


@pytest.mark.invariant("mg-darts", 9)
def test_fixed_rates_take_the_least_important(net: Net) -> None:
    n = shaken(net())
    every = sorted(float(v) for s in n.structures_() for v in s.importance.flatten())
    filters = sum(len(v.mask) for v, _ in n.filters())
    assert prune(n, {"op": 44, "filter": 0.0, "weight": 0.0}) == 44
    assert min(float(s.importance[s.alive].min()) for s in n.structures_()) >= every[43]
    left = sum(len(v.mask) for v, _ in n.filters())
    assert left < filters
    prune(n, {"filter": 0.1})
    assert sum(int(v.mask.sum()) for v, _ in n.filters()) == left - round(0.1 * left)


@pytest.mark.invariant("mg-darts", 9)
def test_a_floor_is_kept(net: Net) -> None:
    n = shaken(net(), size=1.0)
    with torch.no_grad():
        for cell in n.cells_():
            assert cell.t_omega is not None
            cell.t_omega.fill_(10.0)
    prune(n, None, {"op": 0.8, "filter": 0.9, "weight": 0.7})
    found = retention(n)
    assert found["op"] == pytest.approx(0.8, abs=0.004)
    assert found["weight"] == pytest.approx(0.7, abs=0.03)
    total = [v.mask for v, _ in n.filters()]
    assert sum(int(m.sum()) for m in total) == round(0.9 * sum(map(len, total)))


# ---------------------------------------------------------------------- regrowing


@pytest.mark.invariant("mg-darts", 10)
def test_shares_add_up_to_one_and_follow_magnitude_and_momentum(net: Net) -> None:
    n = shaken(net())
    prune(n)
    (n(images()).sum()).backward()
    follow_momentum(n, 0.9)
    assert sum(shares(n).values()) == pytest.approx(1, abs=1e-12)
    values = torch.tensor([[0.4, 0.2], [-0.2, 9.0], [9.0, 9.0]])
    alive = torch.tensor([[True, True], [True, False], [False, False]])
    assert potentials(values, alive) == pytest.approx([0.3, 0.2])
    alive[0, 1] = False
    assert potentials(values, alive) == pytest.approx([0.3, 0.15])  # no survivor: half of the smallest


@pytest.mark.invariant("mg-darts", 10)
def test_momentum_is_the_moving_average_of_the_gradient_of_s(net: Net) -> None:
    n = net(cells=1)
    s = n.structures_()[0]
    for expected in (0.1 * 4.0, 0.9 * 0.4 + 0.4):
        s.alpha.grad = torch.ones_like(s.alpha)  # dL/ds = dL/dalpha / (s (1 - s)) = 4 at s = 0.5
        follow_momentum(n, 0.9)
        assert s.momentum.flatten().tolist() == pytest.approx([expected] * 98)


@pytest.mark.invariant("mg-darts", 10)
@pytest.mark.parametrize("alpha", [40.0, -800.0])
def test_momentum_stays_a_number_where_s_rounds_to_1_or_0(net: Net, alpha: float) -> None:
    n = net(cells=1)
    s = n.structures_()[0]
    s.alpha.data[0, 0] = alpha
    s.alpha.sigmoid().sum().backward()  # dL/ds = 1, and dL/dalpha = 0 where the sigmoid is flat
    follow_momentum(n, 0.9)
    assert s.momentum.flatten().tolist() == pytest.approx([0.0] + [0.1] * 97)


@pytest.mark.invariant("mg-darts", 11)
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 60), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9)), min_size=1, max_size=8))
def test_quotas_add_up_exactly(total: int, kinds: list[tuple[float, int]]) -> None:
    scale = sum(s for s, _ in kinds) or 1.0
    share = {(0, i): s / scale for i, (s, _) in enumerate(kinds)}
    free = {(0, i): f for i, (_, f) in enumerate(kinds)}
    for found in (quotas(total, share, free), drawn(total, share, free, random.Random(0))):
        assert sum(found.values()) == min(total, sum(free.values()))
        assert all(count <= free[kind] for kind, count in found.items())


@pytest.mark.invariant("mg-darts", 11)
def test_quotas_are_the_largest_remainders() -> None:
    share = {(0, 1): 0.5, (0, 2): 0.3, (0, 3): 0.2}
    plenty = dict.fromkeys(share, 99)
    assert quotas(4, share, plenty) == {(0, 1): 2, (0, 2): 1, (0, 3): 1}
    assert quotas(10, share, plenty) == {(0, 1): 5, (0, 2): 3, (0, 3): 2}
    assert quotas(10, share, {**plenty, (0, 1): 1}) == {(0, 1): 1, (0, 2): 5, (0, 3): 4}


@pytest.mark.invariant("mg-darts", 12)
@pytest.mark.parametrize("how", ["largest_remainder", "multinomial"])
def test_regrown_operations_are_new_but_for_their_alpha(net: Net, how: Any) -> None:
    n = shaken(net())
    pruned = prune(n)
    before = [s.alpha.detach().clone() for s in n.structures_()]
    alive = [s.alive.clone() for s in n.structures_()]
    count = round(0.2 * pruned)
    grown, new = regrow(n, count, random.Random(0), how)
    assert len(set(new)) == len(new) == count > 10
    for k, e, op in new:
        assert not alive[k][e, op - 1]
        assert grown.structures_()[k].alive[e, op - 1]
        assert grown.structures_()[k].alpha[e, op - 1] == before[k][e, op - 1]
        module = grown.cells_()[k].operations[f"{e}_{op}"]
        for name, p in module.named_parameters():
            assert not name.endswith("beta") or not p.any()
        assert all(bool((b == 1).all()) for name, b in module.named_buffers() if name.endswith(("mask", "alive")))
    assert sum(int(s.alive.sum()) for s in grown.structures_()) == sum(int(a.sum()) for a in alive) + count
    assert regrow(n, 0, random.Random(0), how)[1] == []
    assert len(regrow(n, 10**6, random.Random(0), how)[1]) == pruned
    kept = n.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in grown.state_dict().items() if k in kept and not k.endswith("alive"))


# ---------------------------------------------------------------------- lambda


@pytest.mark.invariant("mg-darts", 13)
def test_lambda_rises_while_too_few_operations_go_and_falls_when_many_do() -> None:
    c = Controller(1e-5, 2.0, 24, 48, 1.0)
    assert c.value == 0
    seen = []
    for _ in range(3):
        c.after(23, loss=1.0, regulariser=100.0)
        seen.append(c.value)
    assert seen == pytest.approx([4e-5, 2e-4, 8.4e-4])
    c.after(24, 1.0, 100.0)
    assert c.value == seen[-1]  # between: it rests
    c.after(48, 1.0, 100.0)
    assert (c.value, c.step) == (seen[-1] / 2, 1e-5)
    c.after(0, 1.0, 100.0)
    assert c.value == pytest.approx(seen[-1] / 2 + 4e-5)


@pytest.mark.invariant("mg-darts", 13)
@pytest.mark.parametrize(("share", "rises"), [(1.0, False), (0.5, True)])
def test_lambda_has_a_cap_where_it_outweighs_the_task(share: float, rises: bool) -> None:
    c = Controller(1e-2, 2.0, 24, 48, share)
    c.after(0, loss=1.0, regulariser=1.0)
    before = c.value
    c.after(0, loss=0.7, regulariser=1 / before)  # the task's loss is 0.7 of lambda R_ops
    assert (c.value > before) is rises
    for _ in range(20):
        c.after(0, loss=1e9, regulariser=1.0)
    assert c.value == 100
