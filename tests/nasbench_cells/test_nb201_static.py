"""One static pass of several subnets against the subnets one after the other."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nasbench_cells.nb201 import NB201
from torch import Tensor

SPACE = NB201(channels=4, cells=1, classes=4, image=(1, 8, 8))
Archs = list[tuple[int, ...]]


def supernet() -> Any:
    torch.manual_seed(0)
    return SPACE.supernet().double()


def fair(seed: int, shared: int | None = None) -> Archs:
    rng = random.Random(seed)
    columns = [rng.sample(range(5), 5) for _ in range(6)]
    if shared is not None:
        columns[shared] = [rng.randrange(5)] * 5
    return list(zip(*columns, strict=True))


def static(net: Any, images: Tensor, archs: Archs) -> Tensor:
    kind, numbers = net.static_plan(archs)
    logits: Tensor = net.static(images, numbers.to(images.device), kind)
    return logits


def gradients(net: Any, logits: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    weights = torch.linspace(1, 2, logits.numel(), dtype=logits.dtype, device=logits.device).view_as(logits)
    (logits * weights).sum().backward()
    return {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in net.named_parameters()}


def assert_one_by_one(archs: Archs, layout: torch.memory_format, device: str = "cpu") -> None:
    net = supernet().to(device, memory_format=layout)
    images = torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    one_pass, one_by_one = static(net, images, archs), net(images, archs)
    assert torch.allclose(one_pass, one_by_one, rtol=1e-10, atol=1e-10)
    mine, theirs = gradients(net, one_pass), gradients(net, net(images, archs))
    assert all(torch.allclose(mine[name], theirs[name], rtol=1e-10, atol=1e-10) for name in theirs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shared", [None, 0, 5], ids=["fairnas", "ms on edge 0", "ms on edge 5"])
@pytest.mark.parametrize("seed", range(3))
def test_one_static_pass_is_the_subnets_one_after_the_other(
    seed: int, shared: int | None, layout: torch.memory_format
) -> None:
    assert_one_by_one(fair(seed, shared), layout)


@pytest.mark.parametrize("seed", range(10))
def test_any_subnets_have_a_static_pass(seed: int) -> None:
    rng = random.Random(seed)
    archs = [SPACE.sample(rng) for _ in range(3)]
    assert_one_by_one([*archs, archs[0]], torch.channels_last)
    assert_one_by_one(archs[:1], torch.channels_last)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shared", [None, 0, 5])
def test_it_is_so_on_a_gpu(shared: int | None, layout: torch.memory_format) -> None:
    assert_one_by_one(fair(0, shared), layout, "cuda")
    assert_one_by_one(fair(1)[:1], layout, "cuda")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("seed", range(3))
def test_in_bfloat16_either_pass_is_off_by_what_torchs_own_operations_are(seed: int, device: str) -> None:
    """Of float64: logits by at most 2 % in norm, gradients by a quarter, most of it ReLUs at a rounded zero."""
    space, archs = NB201(channels=8, cells=1, classes=10, image=(3, 16, 16)), fair(seed)
    torch.manual_seed(seed)
    net, images = space.supernet().to(device), torch.randn(16, 3, 16, 16).to(device)
    exact = copy.deepcopy(net).double()
    true = exact(images.double(), archs)
    slopes = gradients(exact, true)

    def off(layout: torch.memory_format, forward: Callable[[Any, Tensor, Archs], Tensor]) -> tuple[float, float]:
        low = copy.deepcopy(net).to(memory_format=layout)
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            logits = forward(low, images.contiguous(memory_format=layout), archs)
        found = gradients(low, logits.float())
        far = torch.cat([(found[name].double() - slope).flatten() for name, slope in slopes.items()])
        norm = torch.cat([slope.flatten() for slope in slopes.values()]).norm()
        return float((logits.detach().double() - true.detach()).norm() / true.detach().norm()), float(far.norm() / norm)

    def plain(net: Any, images: Tensor, archs: Archs) -> Tensor:
        logits: Tensor = net(images, archs)
        return logits

    torchs_own = off(torch.contiguous_format, plain)
    for forward in (plain, static):
        found = off(torch.channels_last, forward)
        assert found[0] < 0.02
        assert found[1] < 0.25
        assert all(mine < 1.25 * theirs for mine, theirs in zip(found, torchs_own, strict=True))


@pytest.mark.parametrize("archs", [*map(fair, range(5)), [(0,) * 6], [(0, 0, 0, 3, 0, 0)], [(3, 3, 3, 0, 0, 0)] * 2])
def test_used_names_the_parameters_with_a_gradient(archs: Archs) -> None:
    net = supernet()
    net(torch.randn(4, 1, 8, 8, dtype=torch.float64), archs).sum().backward()
    assert net.used(archs) == {name for name, p in net.named_parameters() if p.grad is not None}


def test_the_numbers_of_a_pass_are_what_each_edge_of_each_subnet_is() -> None:
    """Edges that the output does not depend on count as nothing; whatever the subnets are, there is a pass."""
    conv3, conv1, skip, pool, none = 3, 2, 1, 4, 0
    archs = [(conv3, conv1, skip, none, pool, conv3), (none, conv3, conv1, skip, none, none)]
    n, codes = supernet().static_plan(archs)
    assert n == 2
    assert codes.T.tolist() == [[9, 1, -1, 0, -2, 9], [0, 0, 0, -1, 0, 0]]
