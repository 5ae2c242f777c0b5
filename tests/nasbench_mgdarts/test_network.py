"""The networks: published sizes, the estimator, what a pruned unit contributes."""

from __future__ import annotations

import pytest
import torch
from nasbench_cells.darts import DARTS, EDGES
from nasbench_mgdarts.controller import operation_regulariser
from nasbench_mgdarts.estimator import Step, discretize
from nasbench_mgdarts.heads import Head, StageHead
from nasbench_mgdarts.layers import Conv
from nasbench_mgdarts.network import SearchNet, full_shapes, weights_of
from nasbench_mgdarts.pruning import prune
from nasbench_mgdarts.units import MARGIN, live_thresholds, reset_thresholds, retention, search_size

from tests.nasbench_mgdarts.conftest import ALL, Net, images


def supernet(channels: int, cells: int) -> SearchNet:
    space = DARTS(channels=channels, cells=cells, variant="free")
    with torch.device("meta"):
        return SearchNet(space, full_shapes(space), ALL, "medium", False)


# ---------------------------------------------------------------------- the estimator


@pytest.mark.invariant("mg-darts", 1)
@pytest.mark.parametrize(("x", "slope"), [(0, 2), (0.2, 1.2), (0.4, 0.4), (0.7, 0.4), (1, 0.4), (1.01, 0)])
def test_the_step_function_has_the_long_tailed_gradient(x: float, slope: float) -> None:
    for sign in (1, -1):
        value = torch.tensor([sign * x], dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(Step.apply(value).sum(), value)
        assert found.item() == pytest.approx(slope, abs=1e-12)


@pytest.mark.invariant("mg-darts", 1)
def test_a_unit_at_its_threshold_is_gone_and_one_above_is_whole() -> None:
    assert Step.apply(torch.tensor([0.0, 1e-9, -1.0])).tolist() == [0, 1, 0]
    z = torch.tensor([0.5, -0.5, 0.4, -0.3])
    assert discretize(z, torch.tensor(0.4)).tolist() == [0.5, -0.5, 0, 0]


@pytest.mark.invariant("mg-darts", 1)
def test_the_threshold_gets_the_estimated_gradient() -> None:
    z, t = torch.tensor([0.5, 0.2]), torch.tensor(0.3, requires_grad=True)
    (slope,) = torch.autograd.grad(discretize(z, t).sum(), t)
    assert slope.item() == pytest.approx(-((2 - 4 * 0.2) * 0.5 + (2 - 4 * 0.1) * 0.2), abs=1e-6)


# ---------------------------------------------------------------------- sizes


@pytest.mark.invariant("mg-darts", 2)
@pytest.mark.parametrize(
    ("channels", "cells", "params"), [(44, 14, 21_003_982), (24, 8, 4_083_058), (36, 8, 8_604_694)]
)
def test_parameters_of_the_super_nets(channels: int, cells: int, params: int) -> None:
    net = supernet(channels, cells)
    assert weights_of(net) == params
    assert sum(len(shape.operations) for shape in net.structure()) == 98 * cells


@pytest.mark.invariant("mg-darts", 2)
def test_stages_divide_the_large_net_at_its_reduction_cells() -> None:
    cells = supernet(44, 14).cells_()
    assert [weights_of(torch.nn.ModuleList(cells[a:b])) for a, b in ((0, 4), (4, 9), (9, 14))] == [
        988_240,
        4_283_136,
        15_721_728,
    ]
    assert [i for i, cell in enumerate(cells) if cell.shape.reduces] == [4, 9]
    assert [i for i, cell in enumerate(supernet(24, 8).cells_()) if cell.shape.reduces] == [2, 5]


@pytest.mark.invariant("mg-darts", 3)
@pytest.mark.parametrize(
    ("channels", "kind", "sizes"),
    [
        (44, "medium", [2_123_018, 572_682]),
        (24, "medium", [2_112_778, 552_202]),
        (44, "small", [537_226, 155_274]),
        (44, "large", [2_303_242, 933_130]),
    ],
)
def test_parameters_of_the_auxiliary_heads(channels: int, kind: Head, sizes: list[int]) -> None:
    heads = [StageHead(4 * channels * k, (32 // k, 32 // k), 10, kind) for k in (1, 2)]
    assert [weights_of(head) for head in heads] == sizes
    if channels == 44:
        assert sum(sizes) == {"small": 692_500, "medium": 2_695_700, "large": 3_236_372}[kind]


@pytest.mark.invariant("mg-darts", 3)
@pytest.mark.parametrize("side", [2, 4, 8, 16, 32, 56])
def test_a_head_takes_images_of_any_side(side: int) -> None:
    assert StageHead(8, (side, side), 5, "small")(torch.randn(2, 8, side, side)).shape == (2, 5)


# ---------------------------------------------------------------------- units


@pytest.mark.invariant("mg-darts", 4)
@pytest.mark.parametrize("init", ["minimum", "zero"])
@pytest.mark.parametrize("shared", [False, True])
def test_nothing_is_pruned_at_the_beginning(net: Net, init: str, shared: bool) -> None:
    n = net(shared=shared)
    reset_thresholds(n, init)  # type: ignore[arg-type]
    assert all(bool((s.importance == 0.5).all()) for s in n.structures_())
    before = search_size(n)
    assert prune(n) == 0
    assert search_size(n) == before
    assert retention(n) == {"op": 1.0, "filter": 1.0, "weight": 1.0}
    tops = live_thresholds(n)["op"]
    assert tops.tolist() == pytest.approx([0.5 * (1 - MARGIN) if init == "minimum" else 0.0] * len(tops))


@pytest.mark.invariant("mg-darts", 5)
def test_an_operation_below_its_threshold_contributes_nothing_but_is_heard(net: Net) -> None:
    n = net()
    structure = n.structures_()[1]
    with torch.no_grad():
        structure.alpha[0, 3] = -1.0
    x = images()
    (conv,) = [m for e, op, m in n.cells_()[1].named_operations() if (e, op) == (0, 4)]
    out = n(x)
    out.sum().backward()
    assert not any(p.grad.abs().sum() for p in conv.parameters() if p.grad is not None)
    assert structure.alpha.grad is not None
    assert structure.alpha.grad[0, 3] != 0  # through the estimator, so it may come back
    n.drop(1, 0, 4)
    assert torch.equal(n(x), out)


@pytest.mark.invariant("mg-darts", 5)
def test_a_pruned_operation_has_no_gradient(net: Net) -> None:
    n = net()
    n.drop(1, 0, 4)
    (n(images()).sum() + operation_regulariser(n)).backward()
    structure = n.structures_()[1]
    assert structure.alpha.grad is not None
    assert structure.t_alpha.grad is not None
    assert structure.alpha.grad[0, 3] == 0 == structure.t_alpha.grad[0, 3]
    assert structure.alpha.grad[0, 4] != 0


@pytest.mark.invariant("mg-darts", 5)
def test_a_masked_weight_and_a_masked_filter_count_for_nothing(net: Net) -> None:
    n = net()
    cell = n.cells_()[0]
    conv = next(m for _, _, m in cell.named_operations() if isinstance(m, Conv))
    conv.point.mask[2, 1] = 0
    assert conv.filters.alive is not None
    conv.filters.alive[0] = 0
    x = images()
    out = n(x)
    out.sum().backward()
    assert conv.point.weight.grad is not None
    assert conv.point.weight.grad[2, 1] == 0
    assert not conv.point.weight.grad[0].any()
    with torch.no_grad():
        conv.point.weight[2, 1] = 5.0
        conv.point.weight[0] = 5.0
    assert torch.equal(n(x), out)


@pytest.mark.invariant("mg-darts", 6)
def test_the_operation_regulariser_by_hand(net: Net) -> None:
    n = net(cells=1)
    n.drop(0, 0, 1)
    expected = 0.0
    alive = n.structures_()[0].alive
    for node in (2, 3, 4, 5):
        rows = [e for e, (_, target) in enumerate(EDGES) if target == node]
        count = int(alive[rows].sum())
        expected += count * torch.log1p(torch.tensor(count * 0.5 / (count * 0.5), dtype=torch.float64)).item()
    assert operation_regulariser(n).item() == pytest.approx(expected)
    assert operation_regulariser(n, reg=3.0).item() == pytest.approx(3 * expected)
    # equal filters each weigh log 2: a dilated 3x3 convolution of width 4 costs 36 + 16 log 2 weights
    with_cost = operation_regulariser(n, reg=0.0, mu=1e6).item()
    kernels = {4: 3, 5: 5, 6: 3, 7: 5}
    log2 = torch.log(torch.tensor(2.0, dtype=torch.float64)).item()
    each = {op: 4 * k * k + 16 * log2 for op, k in kernels.items()}
    each |= {op: each[op] + 4 * k * k * log2 + 16 * log2 * log2 for op, k in kernels.items() if op < 6}
    assert with_cost == pytest.approx(14 * log2 * sum(each.values()))
