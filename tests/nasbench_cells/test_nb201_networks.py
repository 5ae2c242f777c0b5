"""The networks of NAS-Bench-201 against a plain reference, which computes everything and prunes nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_cells.nb201 import CONV1, CONV3, EDGES, NB201, NONE, POOL, SKIP
from torch import Tensor

from nasbench import Arch
from nasbench.metrics import kendall_tau

SPACE = NB201(channels=2, cells=1, classes=4, image=(1, 8, 8))
archs = st.tuples(*[st.integers(0, 4)] * 6)
few = settings(max_examples=12)


def supernet(space: NB201 = SPACE) -> Any:
    torch.manual_seed(0)
    return space.supernet().double()


def images(space: NB201 = SPACE, size: int = 5) -> Tensor:
    return torch.randn(size, *space.image, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def normalise(x: Tensor) -> Tensor:
    """Batch norm with batch statistics, no scale, no shift."""
    centred = x - x.mean((0, 2, 3), keepdim=True)
    return centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()


def one_hot(arch: Arch) -> list[Tensor]:
    return [torch.eye(5, dtype=torch.float64)[op] for op in arch]


def reference(net: Any, x: Tensor, mixture: list[Tensor]) -> Tensor:
    """Logits of a mixture by the text of the paper; a subnet is a mixture of weights 0 and 1."""

    def conv(at: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = w[f"{at}.weight"], w.get(f"{at}.bias")
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)

    def operation(edge: str, op: int, x: Tensor) -> Tensor:
        if op == POOL:
            return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        if op in (NONE, SKIP):
            return op * x
        return normalise(conv(f"{edge}.{'conv1x1' if op == CONV1 else 'conv3x3'}", F.relu(x)))

    w = net.state_dict()
    x = normalise(conv("stem", x))
    for i in range(3):
        if i:
            y = normalise(conv(f"reductions.{i - 1}.conv_a", F.relu(x), stride=2))
            y = normalise(conv(f"reductions.{i - 1}.conv_b", F.relu(y)))
            x = y + conv(f"reductions.{i - 1}.shortcut", F.avg_pool2d(x, 2))
        for j in range(len(net.groups[i])):
            nodes = [x]
            for target in (1, 2, 3):
                into = [e for e in range(6) if EDGES[e][1] == target]
                terms = [
                    mixture[e][op] * operation(f"groups.{i}.{j}.edges.{e}", op, nodes[EDGES[e][0]])
                    for e in into
                    for op in range(5)
                ]
                nodes.append(torch.stack(terms).sum(0))
            x = nodes[3]
    return F.relu(normalise(x)).mean((2, 3)) @ w["head.weight"].T + w["head.bias"]


def equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-10, atol=1e-10)


# ---------------------------------------------------------------------- the supernet


@pytest.mark.invariant("nb201", 5)
def test_the_paper_supernet_has_1692474_parameters() -> None:
    with torch.device("meta"):
        net = NB201(channels=16, cells=5, classes=10, image=(3, 32, 32)).supernet()
    assert sum(p.numel() for p in net.parameters()) == 1_692_474
    assert not list(net.buffers())  # no running statistics anywhere


@settings(max_examples=15)
@given(
    st.lists(archs, min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(2, 12),
    st.tuples(st.integers(1, 4), st.sampled_from([4, 8, 12, 20]), st.sampled_from([4, 8, 16])),
    st.integers(2, 4),
)
def test_any_width_depth_classes_and_input_size(
    sample: list[Arch], channels: int, cells: int, classes: int, image: tuple[int, int, int], size: int
) -> None:
    space = NB201(channels=channels, cells=cells, classes=classes, image=image)
    x = torch.randn(size, *image)
    assert space.supernet()(x, sample).shape == (len(sample), size, classes)
    assert space.build(sample[0])(x).shape == (size, classes)


@pytest.mark.parametrize(("image", "fits"), [((3, 32, 32), True), ((1, 8, 12), True), ((3, 30, 32), False)])
def test_images_that_cannot_be_halved_twice_are_refused(image: tuple[int, int, int], fits: bool) -> None:
    reason = NB201(image=image).refuse(SimpleNamespace())  # type: ignore[arg-type]
    assert (reason is None) == fits
    assert fits or "30x32 is no multiple of 4" in str(reason)


@pytest.mark.invariant("nb201", 8)
@few
@given(st.lists(archs, min_size=1, max_size=4), st.sampled_from([(1, 8, 8), (3, 4, 4), (2, 4, 12)]))
def test_subnets_are_those_of_the_reference_also_several_at_once(sample: list[Arch], image: Any) -> None:
    space = NB201(channels=2, cells=2, classes=3, image=image)
    net, x = supernet(space), images(space)
    together = net(x, sample)
    for arch, logits in zip(sample, together, strict=True):
        assert equal(logits, reference(net, x, one_hot(arch)))
        assert equal(logits, net(x, [arch])[0])
    assert net.eval()(x, sample).equal(together)  # batch statistics in evaluation as well


@pytest.mark.invariant("nb201", 8)
@settings(max_examples=5)
@given(archs)
def test_subnets_that_differ_in_one_operation_are_told_apart(arch: Arch) -> None:
    """They have much in common, which may be computed once, but not more than that."""
    net, x = supernet(), images()
    sample = [arch, *SPACE.neighbours(arch)]
    for one, logits in zip(sample, net(x, sample), strict=True):
        assert equal(logits, net(x, [one])[0])


@pytest.mark.invariant("nb201", 8)
@few
@given(archs, st.integers(0, 1000))
def test_mixtures_are_those_of_the_reference_and_one_hot_ones_are_subnets(arch: Arch, seed: int) -> None:
    net, x = supernet(), images()
    assert equal(net(x, [one_hot(arch)])[0], net(x, [arch])[0])
    rng = torch.Generator().manual_seed(seed)
    weights = [torch.rand(5, generator=rng, dtype=torch.float64) for _ in range(6)]
    weights = [row * (torch.rand(5, generator=rng) > 0.3) for row in weights]  # exact zeros among them
    assert equal(net(x, [weights])[0], reference(net, x, weights))


@pytest.mark.invariant("nb201", 9)
@few
@given(archs)
def test_gradient_reaches_exactly_the_operations_that_the_output_depends_on(arch: Arch) -> None:
    net, x = supernet(), images()
    before = reference(net, x, one_hot(arch))
    net(x, [arch]).square().sum().backward()
    reached = {name.rpartition(".")[0] for name, p in net.named_parameters() if p.grad is not None}
    live = set()
    for edge, op in enumerate(arch):
        name = f".edges.{edge}.conv1x1" if op == CONV1 else f".edges.{edge}.conv3x3"
        changed = supernet()
        with torch.no_grad():
            for n, p in changed.named_parameters():
                if name in n:
                    p.add_(torch.ones_like(p).cumsum(0))
        if op in (CONV1, CONV3) and not equal(reference(changed, x, one_hot(arch)), before):
            live |= {f"groups.{i}.{j}{name}" for i in range(3) for j in range(SPACE.cells)}
    assert {name for name in reached if name.startswith("groups")} == live
    blocks = {f"reductions.{i}.{part}" for i in range(2) for part in ("conv_a", "conv_b", "shortcut")}
    connected = not before[0].equal(before[1])  # tells images apart, so something leads from the input to the output
    assert reached - live == ({"stem", "head", *blocks} if connected else {"head"})


@pytest.mark.invariant("nb201", 8)
@few
@given(st.lists(archs, min_size=1, max_size=3), st.booleans())
def test_gradients_are_those_of_the_reference(sample: list[Arch], channels_last: bool) -> None:
    """Of the sum of several subnets' losses, in either memory format."""
    net, x = supernet(), images()
    if channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([0, 1, 2, 3, 0])
    sum(F.cross_entropy(logits, labels) for logits in net(x, sample)).backward()
    ours = {name: p.grad for name, p in net.named_parameters()}
    plain = supernet()
    parameters = dict(plain.named_parameters())
    like = SimpleNamespace(state_dict=lambda: parameters, groups=plain.groups)
    sum(F.cross_entropy(reference(like, x, one_hot(arch)), labels) for arch in sample).backward()
    for name, p in parameters.items():
        assert equal(torch.zeros_like(p) if ours[name] is None else ours[name], p.grad), name


@pytest.mark.invariant("nb201", 10)
def test_architectures_that_connect_nothing_score_alike_and_are_ties() -> None:
    net, x = supernet(), images()
    paths = [(3,), (0, 4), (1, 5), (0, 2, 5)]  # edges from the input to the output
    dead = [arch for arch in SPACE.architectures() if all(any(arch[e] == NONE for e in path) for path in paths)]
    assert len(dead) == sum(SPACE.canonical(arch) == () for arch in SPACE.architectures()) == 341
    logits = net(x, dead[::10])
    assert all(one.equal(logits[0]) for one in logits)
    assert all(row.equal(logits[0, 0]) for row in logits[0])  # no image is told from another
    scores = (logits.argmax(-1) == 0).double().mean(1).tolist()
    assert kendall_tau(scores, list(range(len(scores)))) is None


# ---------------------------------------------------------------------- one architecture alone


def copy_weights(net: Any, alone: Any, arch: Arch, cells: int) -> None:
    """The supernet's weights into the stand-alone network, whose convolutions have no bias."""
    layers = list(alone)
    layers[0].weight.copy_(net.stem.weight)
    places = [(i, j) for i in range(3) for j in [*([-1] if i else []), *range(cells)]]
    for (i, j), layer in zip(places, layers[2:], strict=False):
        if j < 0:
            source = net.reductions[i - 1]
            layer.conv_a[1].weight.copy_(source.conv_a.weight)
            layer.conv_b[1].weight.copy_(source.conv_b.weight)
            layer.shortcut[1].weight.copy_(source.shortcut.weight)
            continue
        for e, op in enumerate(arch):
            if op in (CONV1, CONV3):
                source = net.groups[i][j].edges[e]
                layer.edges[e][1].weight.copy_((source.conv1x1 if op == CONV1 else source.conv3x3).weight)
    layers[-1].load_state_dict(net.head.state_dict())


@pytest.mark.invariant("nb201", 11)
@few
@given(archs)
def test_a_network_alone_is_the_supernets_subnet_with_its_weights(arch: Arch) -> None:
    net, x, alone = supernet(), images(), SPACE.build(arch).double().train()
    with torch.no_grad():
        copy_weights(net, alone, arch, SPACE.cells)
        assert equal(alone(x), net(x, [arch])[0])
        assert torch.allclose(alone.float()(x.float()), net.float()(x.float(), [arch])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.invariant("nb201", 11)
def test_once_a_shift_is_learned_an_operation_on_zeros_counts() -> None:
    with_dead, without = (NONE, NONE, NONE, SKIP, CONV3, NONE), (NONE, NONE, NONE, SKIP, NONE, NONE)
    net, x = supernet(), images()
    alone = [SPACE.build(arch).double().train() for arch in (with_dead, without)]
    with torch.no_grad():
        for arch, one in zip((with_dead, without), alone, strict=True):
            copy_weights(net, one, arch, SPACE.cells)
        assert equal(alone[0](x), alone[1](x))
        for name, p in alone[0].named_parameters():
            if ".edges.4.2.bias" in name:
                p.fill_(0.5)
        assert not equal(alone[0](x), alone[1](x))


def test_a_network_alone_has_running_statistics_and_learns() -> None:
    alone = SPACE.build((CONV3, CONV1, SKIP, POOL, CONV1, CONV3))
    x = images().float()
    before = alone.eval()(x)
    alone.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in alone.parameters())
    assert not alone.eval()(x).equal(before)
