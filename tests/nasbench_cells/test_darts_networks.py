"""The networks of the DARTS space: subnets, mixtures, partial channels, the final network."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_cells.darts import DARTS, EDGES, NONE, OPERATIONS
from torch import Tensor, nn

from nasbench import Arch, BadInput

SPACE = DARTS(channels=4, cells=3, final_channels=4, final_cells=3, classes=3, image=(2, 8, 8))


def drawn(space: DARTS, seed: int) -> Arch:
    return space.sample(random.Random(seed))


def supernet(space: DARTS = SPACE, share: int = 1) -> Any:
    torch.manual_seed(0)
    return (space.supernet() if share == 1 else space.partial_supernet(share)).double()


def images(space: DARTS = SPACE, size: int = 5) -> Tensor:
    return torch.randn(size, *space.image, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-10, atol=1e-10)


def one_hot(space: DARTS, arch: Arch) -> list[Tensor]:
    ops = [op for structure in space.structures(arch) for op in structure]
    if space.variant == "free":
        hot = torch.tensor(ops, dtype=torch.float64).ne(0).double().unflatten(0, (-1, 7))
        return [torch.cat([torch.zeros(1).double(), w]) if space.with_none else w for w in hot]
    eye = torch.eye(len(OPERATIONS), dtype=torch.float64)
    return [eye[op] if space.with_none else eye[op][1:] for op in ops]


@pytest.mark.invariant("darts", 8)
@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from(["SS1", "SS2", "SS3", "free"]), st.booleans())
def test_a_one_hot_mixture_is_the_subnet_alone_or_among_others(seed: int, variant: str, with_none: bool) -> None:
    space = SPACE.with_(variant=variant, with_none=with_none)
    arch, other, net, x = drawn(space, seed), drawn(space, seed + 1), supernet(space), images()
    alone = net(x, [arch])[0]
    assert equal(net(x, [one_hot(space, arch)])[0], alone)
    assert equal(net(x, [other, arch])[1], alone)
    assert equal(net.eval()(x, [arch])[0], alone)  # batch statistics in evaluation as well


@pytest.mark.invariant("darts", 8)
def test_a_mixture_is_the_weighted_sum_of_operations_in_every_edge() -> None:
    """The last edge of the last cell, by hand: the logits are linear in its weights."""
    net, x = supernet(), images()
    base = [torch.rand(8, dtype=torch.float64) for _ in SPACE.relaxed]
    space = SPACE.with_(variant="SS3")
    net.space, base = space, base + base[:14]

    def last(weights: Tensor) -> Tensor:
        return net(x, [[*base[:-1], weights]])[0]

    zero, eye = torch.zeros(8, dtype=torch.float64), torch.eye(8, dtype=torch.float64)
    nothing = last(zero)
    assert equal(last(eye[NONE]), nothing)
    weights = torch.tensor([0.5, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], dtype=torch.float64)
    assert equal(last(weights), nothing + sum(w * (last(e) - nothing) for w, e in zip(weights, eye, strict=True)))


@pytest.mark.invariant("darts", 9)
def test_what_a_mixture_weighs_zero_is_not_computed_and_gets_no_gradient() -> None:
    net, x, arch = supernet(), images(), drawn(SPACE, 5)
    mixture = [w.requires_grad_() for w in one_hot(SPACE, arch)]
    F.cross_entropy(net(x, [mixture])[0], torch.tensor([0, 1, 2, 0, 1])).backward()
    structures = SPACE.structures(arch)
    for i, cell in enumerate(net.cells):
        structure = structures[SPACE.structure_of(i, cell.place.reduces)]
        for edge, op in zip(cell.edges, structure, strict=True):
            for option, module in enumerate(edge.operations, 1):
                assert all((p.grad is not None) == (option == op) for p in module.parameters())


@pytest.mark.invariant("darts", 10)
def test_one_channel_in_k_goes_through_the_operations_and_all_are_shuffled() -> None:
    net = supernet(share=4)
    for reduces, edge in ((False, net.cells[0].edges[0]), (True, net.cells[1].edges[0])):
        width = 8 if reduces else 4
        x = torch.randn(3, width, 8, 8, dtype=torch.float64)
        weights = torch.rand(8, dtype=torch.float64)
        seen: list[int] = []
        for op in edge.operations:
            op.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].shape[1]))
        y = edge(x, weights)
        assert seen == [width // 4] * 7
        part, rest = x[:, : width // 4], x[:, width // 4 :]
        mixed = sum(w * op(part) for w, op in zip(weights[1:], edge.operations, strict=True))
        rest = F.max_pool2d(rest, 2) if reduces else rest
        both = torch.cat([mixed, weights.sum() * rest], 1)
        order = [g * (width // 4) + i for i in range(width // 4) for g in range(4)]
        assert equal(y, both[:, order])
        assert y.shape[1] == width


@pytest.mark.invariant("darts", 10)
def test_a_width_that_the_share_does_not_divide_is_refused() -> None:
    with pytest.raises(BadInput, match=r"darts\.channels = 6 cannot be divided into 4"):
        SPACE.with_(channels=6).partial_supernet(4)


@pytest.mark.invariant("darts", 11)
@settings(max_examples=5)
@given(st.integers(0, 10**6))
def test_the_final_network_is_the_subnet_with_its_weights_but_for_batch_norm_after_pooling(seed: int) -> None:
    """At initialisation and in training mode; the supernet's batch norm after pooling is put out of action."""
    net, arch, x = supernet(), drawn(SPACE, seed), images()
    final: Any = SPACE.build(arch).double()
    for cell in net.cells:
        for edge in cell.edges:
            for option in (1, 2):
                edge.operations[option - 1][1] = nn.Identity()
    for i, (mine, its) in enumerate(zip(final.cells, net.cells, strict=True)):
        structure = SPACE.structures(arch)[SPACE.structure_of(i, mine.place.reduces)]
        mine.preprocess.load_state_dict(its.preprocess.state_dict(), strict=False)
        for e, op in enumerate(structure):
            if op > 2:
                weights = its.edges[e].operations[op - 1].state_dict()
                mine.operations[str(e)].load_state_dict(weights, strict=False)
    final.stem.load_state_dict(net.stem.state_dict(), strict=False)
    final.head.load_state_dict(net.head.state_dict())
    assert equal(final(x), net(x, [arch])[0])


def test_the_auxiliary_head_speaks_in_training_only() -> None:
    space = DARTS(final_channels=2, final_cells=4, auxiliary=True, classes=4)
    net, x = space.build(drawn(space, 0)), torch.randn(2, 3, 32, 32)
    assert isinstance(net.auxiliary, nn.Module)
    logits, auxiliary = net.with_auxiliary(x)  # type: ignore[operator]
    assert logits.shape == auxiliary.shape == (2, 4)
    assert net.eval().with_auxiliary(x)[1] is None  # type: ignore[operator]
    small = space.with_(image=(3, 16, 16))
    with pytest.raises(BadInput, match="auxiliary head needs images of 32 to 40 pixels"):
        small.build(drawn(space, 0))


@pytest.mark.invariant("darts", 12)
def test_a_dropped_path_is_zero_for_an_image_and_the_rest_is_scaled_up() -> None:
    """The mean over many draws is the undropped cell; plain skips are never dropped."""
    structure = tuple(3 if source == 0 else 4 if source == 1 else NONE for source, _ in EDGES)
    space = SPACE.with_(variant="SS2", drop_path=0.5)
    arch = space.architecture([structure, structure])
    cell: Any = space.build(arch).double().cells[0]
    torch.manual_seed(0)
    x = torch.randn(6, 12, 8, 8, dtype=torch.float64)
    whole = cell(x, x, 0.0)
    skip = cell.preprocess[0](x).repeat(1, 4, 1, 1)
    seen = set()
    for _ in range(20):
        gain = (cell(x, x, 0.5) - skip).unflatten(1, (4, -1))
        full = (whole - skip).unflatten(1, (4, -1))
        factors = (gain * full).sum((2, 3, 4)) / full.square().sum((2, 3, 4))
        assert torch.allclose(gain, factors[:, :, None, None, None] * full, atol=1e-9)
        seen |= {round(float(f), 6) for f in factors.detach().flatten()}
    assert seen == {0.0, 2.0}
    net: Any = space.build(arch).eval()
    assert net(images().float()).equal(net(images().float()))


@pytest.mark.invariant("darts", 13)
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_reductions_stand_at_a_third_and_two_thirds(stem: str) -> None:
    for cells, at in ((8, [2, 5]), (14, [4, 9]), (20, [6, 13]), (5, [1, 3])):
        space = DARTS(final_cells=cells, stem=stem, image=(3, 224, 224))
        places = space.places()
        assert [i for i, place in enumerate(places) if place.reduces] == at
        assert places[-1].channels == 4 * 36
        assert places[-1].size == ((56, 56) if stem == "cifar" else (7, 7))


@settings(max_examples=6)
@given(st.integers(2, 5), st.integers(3, 6), st.sampled_from([(1, 8, 8), (3, 12, 20)]), st.sampled_from(["SS1", "SS3"]))
def test_any_width_depth_and_input_size(c: int, cells: int, image: Any, variant: Any) -> None:
    space = DARTS(channels=c, cells=cells, final_channels=c, final_cells=cells, image=image, variant=variant)
    arch, x = drawn(space, c), torch.randn(2, *image)
    assert space.supernet()(x, [arch, arch]).shape == (2, 2, 10)
    assert space.build(arch)(x).shape == (2, 10)
