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

from nasbench.static import order_of

SPACE = NB201(channels=4, cells=1, classes=4, image=(1, 8, 8))


def supernet() -> Any:
    torch.manual_seed(0)
    return SPACE.supernet().double()


def fair(seed: int, shared: int | None = None) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    columns = [rng.sample(range(5), 5) for _ in range(6)]
    if shared is not None:
        columns[shared] = [rng.randrange(5)] * 5
    return list(zip(*columns, strict=True))


def gradients(net: Any, logits: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    weights = torch.linspace(1, 2, logits.numel(), dtype=logits.dtype).view_as(logits)
    (logits * weights).sum().backward()
    return {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in net.named_parameters()}


@pytest.mark.parametrize("shared", [None, 0, 5], ids=["fairnas", "ms on edge 0", "ms on edge 5"])
@pytest.mark.parametrize("seed", range(3))
def test_one_static_pass_is_the_subnets_one_after_the_other(seed: int, shared: int | None) -> None:
    net, archs = supernet(), fair(seed, shared)
    images = torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    known = order_of(archs)
    assert known is not None
    ops, order = known
    one_pass, one_by_one = net.static(images, order, ops), net(images, archs)
    assert torch.allclose(one_pass, one_by_one, rtol=1e-10, atol=1e-10)
    mine, theirs = gradients(net, one_pass), gradients(net, net(images, archs))
    assert all(torch.allclose(mine[name], theirs[name], rtol=1e-10, atol=1e-10) for name in theirs)


@pytest.mark.parametrize("seed", range(3))
def test_in_bfloat16_either_pass_is_off_by_what_torchs_own_operations_are(seed: int) -> None:
    """Of float64: logits by at most 2 % in norm, gradients by a quarter, most of it ReLUs at a rounded zero."""
    space, archs = NB201(channels=8, cells=1, classes=10, image=(3, 16, 16)), fair(seed)
    torch.manual_seed(seed)
    net, images = space.supernet(), torch.randn(16, 3, 16, 16)
    ops, order = order_of(archs) or ((), torch.empty(0))
    exact = copy.deepcopy(net).double()
    true = exact(images.double(), archs)
    slopes = gradients(exact, true)

    def off(layout: torch.memory_format, forward: Callable[[Any, Tensor], Tensor]) -> tuple[float, float]:
        low = copy.deepcopy(net).to(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            logits = forward(low, images.contiguous(memory_format=layout))
        found = gradients(low, logits.float())
        far = torch.cat([(found[name].double() - slope).flatten() for name, slope in slopes.items()])
        norm = torch.cat([slope.flatten() for slope in slopes.values()]).norm()
        return float((logits.detach().double() - true.detach()).norm() / true.detach().norm()), float(far.norm() / norm)

    torchs_own = off(torch.contiguous_format, lambda net, x: net.static(x, order, ops))
    ways: list[Callable[[Any, Tensor], Tensor]] = [
        lambda net, x: net(x, archs),
        lambda net, x: net.static(x, order, ops),
    ]
    for forward in ways:
        found = off(torch.channels_last, forward)
        assert found[0] < 0.02
        assert found[1] < 0.25
        assert all(mine < 1.25 * theirs for mine, theirs in zip(found, torchs_own, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_used_names_the_parameters_with_a_gradient(seed: int) -> None:
    net, archs = supernet(), fair(seed)
    net(torch.randn(4, 1, 8, 8, dtype=torch.float64), archs).sum().backward()
    assert net.used(archs) == {name for name, p in net.named_parameters() if p.grad is not None}


def test_only_permutations_and_agreement_make_a_static_pass() -> None:
    ops, order = order_of([(1, 4, 2), (1, 0, 3), (1, 2, 0)]) or ((), torch.empty(0))
    assert ops == ((1,), (0, 2, 4), (0, 2, 3))
    assert order.tolist() == [[0, 0, 0], [2, 0, 1], [1, 2, 0]]
    assert order_of([(1, 4), (1, 0), (2, 3)]) is None


def test_the_pass_is_traced_once_whatever_the_permutations() -> None:
    net, traced = supernet(), []

    def backend(graph: Any, inputs: Any) -> Any:
        traced.append(graph)
        return graph.forward

    torch.compiler.reset()
    call = torch.compile(net.static, fullgraph=True, dynamic=False, backend=backend)
    for seed in range(3):
        ops, order = order_of(fair(seed)) or ((), torch.empty(0))
        call(torch.randn(2, 1, 8, 8, dtype=torch.float64), order, ops)
    assert len(traced) == 1
