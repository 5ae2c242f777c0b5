"""Cells at one width, cut out; what becomes the final network."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_cells.darts import AVG_POOL, DARTS, EDGES, MAX_POOL, SKIP
from nasbench_mgdarts.align import aligned_width, best, even
from nasbench_mgdarts.final import architecture, final_network, from_genes, genes
from nasbench_mgdarts.layers import Kernel, Reduce, SepConv
from nasbench_mgdarts.network import Cell, FinalNet, SearchNet, Shape, full_shapes
from nasbench_mgdarts.pruning import prune
from nasbench_mgdarts.slicing import cut
from nasbench_mgdarts.units import convolves, retention, search_size

from tests.nasbench_mgdarts.conftest import Net, images
from tests.nasbench_mgdarts.test_pruning import shaken


def trained(n: SearchNet) -> SearchNet:
    """With batch statistics and norms of its own."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in n.state_dict().items():
            if name.endswith(("norm.weight", "norm.bias", "running_mean")):
                value.add_(0.3 * torch.randn(value.shape, generator=rng, dtype=value.dtype))
    return n.eval()


def mask_filters(n: SearchNet, which: list[int]) -> None:
    """The same filters of every vector of the first cells, where there are so many."""
    for cell in n.cells_()[:-1]:
        for module in [*cell.inputs(), *(m for _, _, m in cell.named_operations() if convolves(m))]:
            parts = [module.first.filters, module.second.filters] if isinstance(module, SepConv) else [module.filters]
            for filters in parts:
                filters.alive[which] = 0.0


@pytest.mark.invariant("mg-darts", 14)
@pytest.mark.parametrize("kept", ["op", "cell"])
@pytest.mark.parametrize("cells", [3, 2])
def test_a_net_without_its_masked_filters_is_the_same_net(net: Net, kept: Any, cells: int) -> None:
    n = shaken(net(cells=cells, channels=8))
    prune(n, {"op": 120, "filter": 0.0, "weight": 0.05})
    mask_filters(n, [1, 6])
    n = trained(n)
    sliced, _ = cut(n, kept=kept)
    assert [shape.width for shape in sliced.structure()] == ([6, 14, 32] if cells == 3 else [6, 16])
    x = images()
    assert torch.allclose(sliced.eval()(x), n(x), atol=1e-9)
    assert search_size(sliced) < search_size(n)  # kernels lose the channels that nobody makes
    both = retention(sliced), retention(n)
    assert both[0]["op"] == both[1]["op"]
    smaller = sum(p.numel() for p in sliced.parameters())
    assert smaller < sum(p.numel() for p in n.parameters())


@pytest.mark.invariant("mg-darts", 14)
def test_slicing_carries_all_of_a_batch_norm_over_unless_told_otherwise(net: Net) -> None:
    n = trained(net(channels=8))
    mask_filters(n, [1, 6])
    name = "cells.0.preprocess.1.filters.norm"
    whole, bare = cut(n)[0].state_dict(), cut(n, reset_norms=True)[0].state_dict()
    left = [0, 2, 3, 4, 5, 7]
    for part in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(whole[f"{name}.{part}"], n.state_dict()[f"{name}.{part}"][left])
    assert torch.equal(bare[f"{name}.weight"], whole[f"{name}.weight"])
    assert not bare[f"{name}.bias"].any()
    assert not bare[f"{name}.running_mean"].any()
    assert torch.equal(bare["stem.0.1.running_mean"], whole["stem.0.1.running_mean"])


@pytest.mark.invariant("mg-darts", 15)
@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6), st.floats(0.1, 3), st.sampled_from(["op", "cell"]))
def test_all_convolutions_of_a_cell_get_one_even_width(seed: int, size: float, kept: Any) -> None:
    space = DARTS(channels=6, cells=3, variant="free", image=(3, 8, 8))
    n = SearchNet(space, full_shapes(space), frozenset({"op", "filter"}), "medium", False)
    for s in n.structures_():
        s.t_alpha.data.fill_(0.499)
    for cell in n.cells_():
        assert cell.t_beta is not None
        assert cell.t_input is not None
        cell.t_beta.data.fill_(0.5)
        cell.t_input.data.fill_(0.5)
    prune(shaken(n, seed, size))
    sliced, _ = cut(n, kept=kept)
    for i, cell in enumerate(sliced.cells_()):
        width = cell.shape.width
        assert width % 2 == 0
        assert 2 * width >= cell.shape.channels
        assert i < 2 or width == cell.shape.channels  # what the head takes
        for module in [*cell.inputs(), *(m for _, _, m in cell.named_operations() if convolves(m))]:
            assert len(module.outputs.mask) == width
            if isinstance(module, SepConv):
                middle = len(module.first.filters.mask)
                assert middle % 2 == 0
                assert middle >= width
    assert sliced(images(2).float()).shape == (2, 10)


@pytest.mark.invariant("mg-darts", 15)
@pytest.mark.parametrize(
    ("counts", "code", "mean"),
    [
        ([8, 8, 8, 8, 8, 8], 8, 8),
        ([8, 6, 4, 4, 4, 4], 6, 4),  # 30 / 6 = 5, made even
        ([2, 2, 2, 2, 2, 6], 6, 4),  # the mean 2.67 is below C/2: the maximum
        ([2, 2, 2, 1, 1, 2], 4, 2),  # and that too: C/2
        ([7, 5, 3, 3, 3, 3], 6, 4),  # each state's is made even before
    ],
)
def test_the_rule_for_the_width(net: Net, counts: list[int], code: int, mean: int) -> None:
    n = net(channels=8, cells=1)
    (cell,) = n.cells_()
    for e in range(14):
        for op in range(1, 8):
            node = [2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5][e]
            if e not in (0, 2, 5, 9) or op != 6:
                n.drop(0, e, op)
            else:
                cell.operations[f"{e}_6"].filters.alive[counts[node] :] = 0.0  # type: ignore[union-attr,operator]
    for module, count in zip(cell.inputs(), counts, strict=False):
        module.filters.alive[count:] = 0.0
    assert aligned_width(cell, "code") == code
    assert aligned_width(cell, "paper_mean") == mean


def test_kept_filters_are_those_left_then_the_most_important() -> None:
    mask = torch.tensor([True, False, True, False, False])
    importance = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.95])
    assert best(mask, importance, 1).tolist() == [2]
    assert best(mask, importance, 3).tolist() == [0, 2, 4]
    assert best(mask, importance, 4).tolist() == [0, 1, 2, 4]
    assert [even(x) for x in (2.9, 3.0, 4.0)] == [2, 4, 4]


def test_a_reduction_may_keep_filters_of_one_half_only(net: Net) -> None:
    n = trained(net(channels=8))
    mask_filters(n, [0, 1, 2, 3])
    sliced, _ = cut(n, kept="cell")
    (module,) = {m for _, _, m in sliced.cells_()[1].named_operations() if isinstance(m, Reduce)} and [
        sliced.cells_()[1].operations["0_3"]
    ]
    assert isinstance(module, Reduce)
    assert torch.allclose(sliced.eval()(images()), n(images()), atol=1e-9)


# ---------------------------------------------------------------------- the final network


@pytest.fixture
def found(net: Net) -> tuple[SearchNet, FinalNet]:
    n = shaken(net(channels=8))
    prune(n, {"op": 150, "filter": 0.2, "weight": 0.03})
    n, _ = cut(n)
    return n, final_network(n, architecture(n))


@pytest.mark.invariant("mg-darts", 16)
def test_non_zero_parameters_are_all_but_the_zeros_of_the_masks(found: tuple[SearchNet, FinalNet]) -> None:
    n, final = found
    dense, nonzero = final.sizes()
    zeros = sum(int((m.mask == 0).sum()) for m in final.modules() if isinstance(m, Kernel))
    assert dense == sum(p.numel() for p in final.parameters())
    assert zeros > 0
    assert nonzero == dense - zeros
    searched = {name: b for name, b in n.named_buffers() if name.endswith(".mask")}
    assert all(torch.equal(b, searched[name].float()) for name, b in final.named_buffers() if name.endswith(".mask"))


@pytest.mark.invariant("mg-darts", 16)
def test_genes_say_all_there_is_to_build(found: tuple[SearchNet, FinalNet]) -> None:
    n, final = found
    cells = genes(final)
    again = from_genes(n.space, cells)
    again.load_state_dict(final.state_dict())
    x = images().float()
    assert torch.equal(again.eval()(x), final.eval()(x))
    assert sum(len(c["operations"]) for c in cells) == sum(int(s.alive.sum()) for s in n.structures_())
    for cell, made in zip(cells, final.cells, strict=True):
        assert isinstance(made, Cell)
        for gene in cell["operations"]:
            assert 0 <= gene["input"] < gene["output"] <= 5
            length = 3 if gene["op"].startswith("sep") else 2 if gene["op"].startswith("dil") else 1
            assert len(gene["filters"]) == length
            assert gene["filters"][0] == cell["width"] == made.shape.width


@pytest.mark.invariant("mg-darts", 17)
@pytest.mark.parametrize("variant", ["SS1", "SS2", "SS3", "free"])
def test_every_variant_gets_an_architecture_of_its_own(net: Net, variant: str) -> None:
    n = shaken(net(variant=variant, search=frozenset({"op"}), cells=3))
    assert len(n.structures_()) == (2 if variant in ("SS1", "SS2") else 3)
    prune(n)
    arch = architecture(n)
    assert arch in n.space
    final = final_network(n, arch).double()
    assert final(images()).shape == (4, 10)
    for cell, structure in zip(genes(final), (n.space.structure_of(i, i > 0) for i in range(3)), strict=True):
        chosen = n.space.structures(arch)[structure]
        assert len(cell["operations"]) == sum(op != 0 for op in chosen)
    if variant == "SS1":
        assert [len(cell["operations"]) for cell in genes(final)] == [8, 8, 8]
    if variant == "free":
        assert arch == tuple(int(a) for s in n.structures_() for a in s.alive.flatten())


@pytest.mark.invariant("mg-darts", 16)
def test_a_masked_weight_stays_zero_while_the_final_network_is_trained(found: tuple[SearchNet, FinalNet]) -> None:
    _, final = found
    x = images().float()
    before = final.train()(x)
    with torch.no_grad():
        for module in final.modules():
            if isinstance(module, Kernel):
                module.weight += (module.mask == 0) * 3.0
    assert torch.equal(final(x), before)
    final(x).sum().backward()
    for module in final.modules():
        if isinstance(module, Kernel):
            assert module.weight.grad is None or not module.weight.grad[module.mask == 0].any()


#: What the authors' networks for CIFAR-10 have, cell by cell: the width, how many 3x3 and 5x5 separable
#: convolutions for each middle width, 3x3 and 5x5 dilated ones, skips of stride 2, poolings, plain skips.
Published: TypeAlias = "tuple[tuple[int, dict[int, int], dict[int, int], int, int, int, int, int], ...]"
SMALL: Published = (
    (18, {18: 8, 20: 1}, {18: 4, 20: 3}, 1, 2, 0, 5, 1),
    (24, {24: 2}, {24: 2}, 2, 2, 0, 4, 0),
    (36, {36: 6}, {36: 6, 40: 2}, 1, 5, 4, 9, 1),
    (38, {38: 4}, {38: 5, 40: 1, 42: 1}, 1, 6, 0, 13, 5),
    (40, {40: 4}, {40: 7, 42: 1}, 2, 3, 0, 6, 2),
    (72, {72: 4}, {72: 5}, 1, 1, 3, 7, 1),
    (64, {64: 2}, {64: 5, 68: 1}, 2, 2, 0, 9, 1),
    (96, {}, {96: 1}, 1, 1, 0, 4, 1),
)
LARGE: Published = (
    (40, {40: 5, 42: 2}, {40: 4, 42: 1}, 0, 3, 0, 6, 2),
    (42, {42: 3}, {42: 4}, 0, 3, 0, 1, 2),
    (40, {40: 5}, {40: 5}, 2, 4, 0, 9, 6),
    (42, {42: 2}, {42: 5}, 1, 1, 0, 11, 4),
    (60, {60: 6, 62: 1}, {60: 7}, 4, 7, 3, 14, 2),
    (72, {}, {}, 1, 0, 0, 3, 0),
    (68, {68: 2, 74: 1}, {68: 2}, 4, 4, 0, 8, 4),
    (58, {58: 3, 62: 1}, {58: 3, 62: 1}, 3, 8, 0, 1, 0),
    (60, {}, {60: 2, 66: 1}, 2, 0, 0, 9, 3),
    (116, {124: 1, 142: 1}, {116: 3, 122: 1}, 3, 2, 2, 4, 2),
    (110, {110: 2, 130: 1}, {110: 2}, 0, 3, 0, 12, 4),
    (110, {110: 1, 112: 1, 130: 1, 142: 1, 148: 1}, {}, 0, 0, 0, 5, 6),
    (110, {110: 1}, {}, 0, 0, 0, 3, 2),
    (176, {176: 1}, {176: 1}, 0, 2, 0, 15, 0),
)


def published(cells: Published, channels: int) -> tuple[DARTS, list[Shape]]:
    """What a final network with these operations is made of; on which edges they lie changes none of the numbers."""
    space = DARTS(channels=channels, cells=len(cells), variant="free")
    shapes: list[Shape] = []
    inner = [e for e, (source, _) in enumerate(EDGES) if source >= 2]  # here a skip has stride 1 in any cell
    outer = [e for e in range(len(EDGES)) if e not in inner]
    for (width, sep3, sep5, dil3, dil5, halving, pools, skips), full in zip(cells, full_shapes(space), strict=True):
        separable = [[middle for middle, count in of.items() for _ in range(count)] for of in (sep3, sep5)]
        numbers = [*separable, [0] * dil3, [0] * dil5]
        found = [(e, SKIP + 1 + i, number) for i, of in enumerate(numbers) for e, number in enumerate(of)]
        found += [(e, SKIP, width // 2) for e in outer[:halving]] + [(e, SKIP, 0) for e in inner[:skips]]
        found += [(e, op, 0) for op in (MAX_POOL, AVG_POOL) for e in range(len(EDGES))][:pools]
        before, last = (4 * shapes[-back].width if len(shapes) >= back else 3 * channels for back in (2, 1))
        even_ = width // 2 if full.after_reduction else 0
        shapes.append(full._replace(before=before, last=last, width=width, even=even_, operations=tuple(found)))
    return space, shapes


def operations(shapes: list[Shape]) -> int:
    return sum(len(shape.operations) for shape in shapes)


@pytest.mark.invariant("mg-darts", 23)
def test_the_authors_small_network_has_the_parameters_of_its_authors() -> None:
    space, shapes = published(SMALL, channels=24)
    assert operations(shapes) == 184
    final = FinalNet(space, shapes)
    assert final.sizes() == (704_082, 704_082)
    masks = [m.mask for m in final.modules() if isinstance(m, Kernel)]
    assert sum(mask.numel() for mask in masks) == 518_232
    left = 6_940  # zeros in the authors' masks, wherever they are
    for mask in masks:
        zeros = mask.view(-1)[:left]
        zeros.zero_()
        left -= len(zeros)
    assert final.sizes() == (704_082, 697_142)


@pytest.mark.invariant("mg-darts", 27)
def test_the_authors_large_network_has_the_parameters_of_its_authors_but_for_an_input_that_nothing_reads() -> None:
    space, shapes = published(LARGE, channels=44)
    assert operations(shapes) == 285
    # In their sixth cell no operation reads the older input, and their code leaves it at the full 88 channels
    # instead of the cell's 72: 16 more filters of 4 * 42 inputs, each with a scale and a shift.
    assert 2_290_716 - FinalNet(space, shapes).sizes()[0] == 16 * (4 * 42 + 2)
