"""The MobileNetV3 supernet: subnets, slices, masks and mixtures compute the same."""

from __future__ import annotations

import copy
import itertools
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nasbench_mobile.mobilenet_v3 import MobileNetV3
from nasbench_mobile.mobilenet_v3_supernet import ElasticBlock, Supernet, part
from torch import Tensor, nn

from nasbench import Arch
from nasbench.testing.spaces import count_costs

SMALL = MobileNetV3(width=0.2, image=(2, 12, 12), classes=5, strides=(1, 2, 1, 2, 1, 1))
LARGEST = (2,) * 45


def some(count: int, seed: int = 0) -> list[Arch]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(3) for _ in range(45)) for _ in range(count)]


@pytest.fixture
def net() -> Supernet:
    """With scales and shifts that are not those of a fresh batch norm."""
    torch.manual_seed(0)
    net = Supernet(SMALL)
    for p in net.parameters():
        if p.ndim == 1:
            nn.init.normal_(p, 0.5)
    return net


@pytest.fixture
def images() -> Tensor:
    return torch.randn(7, 2, 12, 12, generator=torch.Generator().manual_seed(1))


def one_hot(arch: Arch) -> Tensor:
    return F.one_hot(torch.tensor(arch), 3).float()


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item() / a.abs().max().item()


@pytest.mark.invariant("mobilenetv3", 3)
@pytest.mark.parametrize(
    "space",
    [
        MobileNetV3(image=(3, 64, 64), classes=10),
        MobileNetV3(image=(3, 32, 32), classes=100, strides=(1, 1, 2, 2, 1, 2)),
        MobileNetV3(width=0.35, image=(1, 9, 13), classes=4, strides=(1, 2, 2, 1, 1, 2)),
    ],
    ids=["published", "32x32", "odd"],
)
def test_costs_are_those_counted_on_the_network(space: MobileNetV3) -> None:
    for arch in [(0,) * 45, LARGEST, *some(2)]:
        assert space.cost(arch) == count_costs(space, arch)


@pytest.mark.invariant("mobilenetv3", 3)
def test_the_32x32_variant_halves_the_image_three_times() -> None:
    space = MobileNetV3(image=(3, 32, 32), strides=(1, 1, 2, 2, 1, 2))
    assert [area**0.5 for area in space.areas] == [32, 32, 16, 8, 8, 4]


@pytest.mark.invariant("mobilenetv3", 5)
def test_smaller_kernels_are_views_of_the_largest_and_smaller_widths_its_first_channels(net: Supernet) -> None:
    block = net.units[1][1]
    assert isinstance(block, ElasticBlock)
    whole = block.depthwise.weight
    for option, (first, last) in enumerate([(2, 5), (1, 6), (0, 7)]):
        kernel = block.kernel(option)
        assert kernel.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
        assert torch.equal(kernel, whole[:, :, first:last, first:last])
    assert torch.equal(part(block.expand.weight, (16, 3, 1, 1)), block.expand.weight[:16, :3])
    assert not any(name.split(".")[-1] not in ("weight", "bias") for name, _ in net.named_parameters())


@pytest.mark.invariant("mobilenetv3", 6)
def test_a_subnet_a_slice_a_mask_and_a_one_hot_mixture_are_the_same(net: Supernet, images: Tensor) -> None:
    with torch.no_grad():
        for arch in [LARGEST, (0,) * 45, *some(6)]:
            shared = net(images, [arch])[0]
            assert difference(shared, net(images, [SMALL.nested(one_hot(arch))])[0]) < 1e-4
            assert difference(shared, net(images, [list(one_hot(arch))])[0]) < 1e-4
            assert difference(shared, net.subnet(arch).train()(images)) < 1e-4


@pytest.mark.invariant("mobilenetv3", 6)
def test_so_is_a_slice_with_fixed_statistics(net: Supernet, images: Tensor) -> None:
    """In eval mode, once its batch norms hold what they saw of the same images (without Bessel's correction)."""

    def hold(norm: Any, inputs: tuple[Tensor], _: Tensor) -> None:
        norm.running_mean = inputs[0].mean((0, 2, 3))
        norm.running_var = inputs[0].var((0, 2, 3), unbiased=False)

    with torch.no_grad():
        for arch in some(6, seed=1):
            network = net.subnet(arch)
            hooks = [m.register_forward_hook(hold) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
            network.train()(images)
            for hook in hooks:
                hook.remove()
            alone = network.eval()(images)
            assert difference(net(images, [SMALL.nested(one_hot(arch))])[0], alone) < 1e-4
            assert difference(alone, network.train()(images)) < 1e-4


@pytest.mark.invariant("mobilenetv3", 6)
def test_masking_before_batch_norm_would_not_be_the_same(net: Supernet, images: Tensor) -> None:
    """The reason why masks come after the activation: a shift brings a zeroed channel back."""
    block = net.units[0][1]
    assert isinstance(block, ElasticBlock)
    masked = copy.deepcopy(block)
    with torch.no_grad():
        x = torch.randn(4, block.project.weight.shape[0], 6, 6)
        masked.expand.weight[block.middles[0] :] = 0
        assert difference(block(x, 2, 0), masked(x, 2, 2)) > 1e-2
        assert difference(block(x, 2, 0), block(x, 2, torch.tensor([1.0, 0, 0]))) < 1e-4


@pytest.mark.invariant("mobilenetv3", 8)
def test_sorting_keeps_what_the_kept_widths_compute_and_puts_the_important_first(net: Supernet, images: Tensor) -> None:
    middle = (2,) * 20 + (1,) * 20 + (2,) * 5
    small = (2,) * 20 + (0,) * 20 + (2,) * 5
    start = copy.deepcopy(net.state_dict())
    for kept in ([2], [1, 2]):
        net.load_state_dict(start)
        with torch.no_grad():
            before = net(images, [LARGEST, middle, small])
            net.sort_channels(kept)
            after = net(images, [LARGEST, middle, small])
        assert difference(before[0], after[0]) < 1e-4
        assert (difference(before[1], after[1]) < 1e-4) == (1 in kept)
        assert difference(before[2], after[2]) > 1e-4
        for block in (m for m in net.modules() if isinstance(m, ElasticBlock)):
            importance = block.project.weight.abs().sum((0, 2, 3))
            bounds = [0, *(block.middles[e] for e in kept)]
            for a, b in itertools.pairwise(bounds):
                assert (importance[a:b].diff() <= 1e-6).all()


@pytest.mark.invariant("mobilenetv3", 9)
def test_a_mixture_is_the_weighted_sum_of_its_options(net: Supernet, images: Tensor) -> None:
    """Three uncertain decisions of the first unit, by hand."""
    kernels, widths, depths = (torch.tensor(w) for w in ([0.2, 0.0, 0.8], [0.5, 0.5, 0.0], [0.1, 0.3, 0.6]))
    mixture = list(one_hot(LARGEST))
    mixture[1], mixture[21], mixture[40] = kernels, widths, depths
    with torch.no_grad():
        x, (unit, *_) = net.open(images), net.units
        x = unit[0](x)
        x = sum(kernels[k] * widths[e] * unit[1](x, k, e) for k in range(3) for e in range(3))
        third = unit[2](x)
        x = depths[0] * x + depths[1] * third + depths[2] * unit[3](third)
        for other in net.units[1:]:
            for block in other:
                x = block(x)
        assert difference(net.close(x), net(images, [mixture])[0]) < 1e-4


def test_gradients_of_a_nested_mixture_reach_every_option(net: Supernet, images: Tensor) -> None:
    """Also of parts that are switched off: a kernel's ring, channels, a block."""
    mixture = one_hot((0,) * 45).requires_grad_()
    net(images, [SMALL.nested(mixture)]).square().sum().backward()
    assert mixture.grad is not None
    assert mixture.grad[[i for i in range(40) if i % 4 < 2], 1:].ne(0).all()
    assert mixture.grad[40:, 1].ne(0).all()


def test_subnets_keep_their_own_weights(net: Supernet) -> None:
    network, before = net.subnet(LARGEST), copy.deepcopy(net.state_dict())
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_dropout_only_while_training() -> None:
    net, images = MobileNetV3(**{**SMALL.model_dump(), "dropout": 0.5}).supernet(), torch.randn(4, 2, 12, 12)
    with torch.no_grad():
        assert not torch.equal(net.train()(images, [LARGEST]), net(images, [LARGEST]))
        assert torch.equal(net.eval()(images, [LARGEST]), net(images, [LARGEST]))
