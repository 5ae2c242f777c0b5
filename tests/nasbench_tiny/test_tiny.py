"""The tiny space: its costs counted on its networks, its supernet against its networks, its table."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_tiny.tiny import BOTTLENECK, LINEAR, SKIP, Tiny
from torch import Tensor, nn

from nasbench import Arch

SPACE = Tiny(width=6, classes=4, image=(1, 4, 4))
ARCHS = list(SPACE.architectures())
archs = st.sampled_from(ARCHS)


def supernet() -> Any:
    torch.manual_seed(0)
    return SPACE.supernet().double()


def images() -> Tensor:
    return torch.randn(5, *SPACE.image, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def layers(net: Any, arch: Arch) -> list[nn.Module]:
    return [net.layers[i][op - 1] for i, op in enumerate(arch) if op != SKIP]


@pytest.mark.invariant("tiny", 1)
def test_there_are_27_architectures() -> None:
    assert len(set(ARCHS)) == SPACE.size == 27
    assert [SPACE.number(arch) for arch in ARCHS] == list(range(27))
    assert SPACE.format((SKIP, LINEAR, BOTTLENECK)) == "layer0=skip layer1=linear layer2=bottleneck"


@pytest.mark.invariant("tiny", 2)
@settings(max_examples=30)
@given(archs, st.integers(2, 20), st.integers(2, 12), st.tuples(*[st.integers(1, 6)] * 3))
def test_costs_are_those_counted_on_the_network(
    arch: Arch, width: int, classes: int, image: tuple[int, int, int]
) -> None:
    space = Tiny(width=width, classes=classes, image=image)
    net = space.build(arch)
    weights = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Linear))
    params = sum(p.numel() for p in net.parameters())
    assert space.cost(arch) == {"params": params, "conv_weights": weights, "madds": weights}


@pytest.mark.invariant("tiny", 2)
def test_a_cost_by_hand() -> None:
    # 64 x 16 into the layers, 16 x 16 linear, 2 x 16 x 8 bottleneck, 16 x 10 out of them; a bias per output.
    assert Tiny(image=(1, 8, 8)).cost((SKIP, LINEAR, BOTTLENECK)) == {
        "params": 1024 + 16 + 256 + 16 + 256 + 24 + 160 + 10,
        "conv_weights": 1024 + 256 + 256 + 160,
        "madds": 1024 + 256 + 256 + 160,
    }


@pytest.mark.invariant("tiny", 3)
@given(archs)
def test_a_subnet_is_the_network_with_its_weights(arch: Arch) -> None:
    net, x, alone = supernet(), images(), SPACE.build(arch).double()
    alone.stem.load_state_dict(net.stem.state_dict())
    alone.head.load_state_dict(net.head.state_dict())
    for to, source in zip(alone.layers, layers(net, arch), strict=True):
        to.load_state_dict(source.state_dict())
    assert torch.allclose(net(x, [arch])[0], alone(x), rtol=1e-12)


@pytest.mark.invariant("tiny", 3)
@given(st.lists(archs, min_size=1, max_size=4))
def test_several_subnets_at_once_are_the_same_one_by_one(sample: list[Arch]) -> None:
    net, x = supernet(), images()
    together = net(x, sample)
    assert together.shape == (len(sample), 5, 4)
    assert all(one.equal(net(x, [arch])[0]) for one, arch in zip(together, sample, strict=True))


@pytest.mark.invariant("tiny", 3)
@given(archs)
def test_a_one_hot_mixture_is_the_subnet(arch: Arch) -> None:
    net, x = supernet(), images()
    mixture = [torch.eye(3, dtype=torch.float64)[op] for op in arch]
    assert torch.allclose(net(x, [mixture]), net(x, [arch]), rtol=1e-12)


@pytest.mark.invariant("tiny", 3)
def test_a_mixture_weighs_what_each_operation_adds() -> None:
    net, x = supernet(), images()
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    hidden = net.stem(x.flatten(1))
    for linear, bottleneck in net.layers:
        hidden = hidden + 0.5 * linear(hidden) + 0.3 * bottleneck(hidden)
    assert torch.allclose(net(x, [[weights] * 3])[0], net.head(hidden.relu()), rtol=1e-12)


@pytest.mark.invariant("tiny", 4)
@given(archs)
def test_gradient_reaches_exactly_the_operations_of_the_subnet(arch: Arch) -> None:
    net = supernet()
    net(images(), [arch]).square().sum().backward()
    used = {id(p) for m in [net.stem, net.head, *layers(net, arch)] for p in m.parameters()}
    assert {id(p) for p in net.parameters() if p.grad is not None} == used


@pytest.mark.invariant("tiny", 4)
@given(archs)
def test_a_subnet_depends_on_its_own_operations_only(arch: Arch) -> None:
    net, x = supernet(), images()
    changed = copy.deepcopy(net)
    used = {id(p) for m in layers(changed, arch) for p in m.parameters()}
    with torch.no_grad():
        for p in changed.layers.parameters():
            if id(p) not in used:
                p.fill_(torch.nan)
    assert changed(x, [arch]).equal(net(x, [arch]))


@pytest.mark.invariant("tiny", 5)
def test_the_embedded_table_holds_every_architecture_and_says_what_it_belongs_to() -> None:
    table = Tiny(width=3, classes=4, image=(3, 32, 32)).ground_truth("digits")
    assert table is not None
    assert table.architectures() == ARCHS
    assert table.space == Tiny(width=16, classes=10, image=(1, 8, 8))
    seeds = [[str(c) for c in table.columns if c.split == split and c.seed != "mean"] for split in ("valid", "test")]
    assert list(map(len, seeds)) == [5, 5]
    for split in ("valid", "test"):
        rows = [values for c, values in table.columns.items() if c.split == split and c.seed != "mean"]
        assert table.column(split, "digits") == pytest.approx(sum(rows) / 5, abs=1e-12)
    assert 80 < table.column("test", "digits").min() < table.column("test", "digits").max() < 100


def test_other_targets_have_no_table() -> None:
    assert SPACE.targets() == ["digits"]
    assert SPACE.ground_truth("cifar10") is None
