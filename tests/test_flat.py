"""SGD on parameters in one tensor: torch's own, step by step, as reference."""

from __future__ import annotations

import copy
import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import compress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasbench.flat import FlatSGD


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def close(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether both are nothing or the same: bit for bit on a CPU, but for rounding on a GPU."""
    if a is None or b is None:
        return a is b
    return torch.equal(a, b) if a.device.type == "cpu" else torch.allclose(a, b, rtol=1e-10, atol=1e-12)


class Pair:
    """The same net with torch's optimizer and with the flat one."""

    def __init__(self, device: str, **settings: Any) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 3))
        self.nets = [net.double().to(device, memory_format=torch.channels_last), copy.deepcopy(net)]
        self.plain = torch.optim.SGD(self.nets[0].parameters(), **settings, foreach=True)
        self.flat = FlatSGD(self.nets[1], **settings, foreach=True)
        self.rng = random.Random(0)

    @property
    def optimizers(self) -> tuple[torch.optim.SGD, FlatSGD]:
        return self.plain, self.flat

    def parameters(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each in both nets."""
        return zip(*(net.parameters() for net in self.nets), strict=True)

    def slopes(self) -> tuple[bytes, list[Tensor]]:
        """Some parameters, but always a few, and a gradient for each of these."""
        parameters = list(self.nets[0].parameters())
        used = bytes([self.rng.random() < 0.5 for _ in parameters[1:]] + [True])
        return used, [torch.randn_like(p) for p in compress(parameters, used)]

    def backward(self) -> None:
        """What a backward pass does, to the flat one's parameters by `add`."""
        used, slopes = self.slopes()
        gradient = torch.zeros_like(self.flat.whole)
        for view, slope in zip(compress(self.flat.views(gradient), used), slopes, strict=True):
            view.copy_(slope)
        self.flat.add(gradient, used)
        for p, slope in zip(compress(self.nets[0].parameters(), used), slopes, strict=True):
            p.grad = slope.clone() if p.grad is None else p.grad + slope

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def assert_same(self) -> None:
        for mine, theirs in self.parameters():
            assert close(mine, theirs)
            assert close(mine.grad, theirs.grad)
            assert (mine in self.plain.state) == (theirs in self.flat.state)
            if mine in self.plain.state:
                buffers = [
                    o.state[p].get("momentum_buffer") for o, p in zip(self.optimizers, (mine, theirs), strict=True)
                ]
                assert close(*buffers)


SETTINGS: list[dict[str, Any]] = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.3},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.3},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.3, "nesterov": True},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_steps_are_torchs(device: str, settings: dict[str, Any], set_to_none: bool) -> None:
    """Also with gradients of two passes, and with another rate and decay in each step."""
    pair = Pair(device, **settings)
    for step in range(12):
        pair.zero_grad(set_to_none)
        for _ in range(1 + step % 2):
            pair.backward()
        for optimizer in pair.optimizers:
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimizer.param_groups[0]["weight_decay"] = settings.get("weight_decay", 0) * (1 + step)
        pair.assert_same()
        pair.step()
        pair.assert_same()


def test_the_norm_is_of_the_gradients_that_there_are(device: str) -> None:
    """One that a plugin takes away, say because it is not a number, does not count, though it is still in memory."""
    pair = Pair(device, lr=0.1)
    for clip in (0.5, 1e3):
        pair.zero_grad()
        pair.backward()
        for net in pair.nets:
            if net[3].weight.grad is not None:
                net[3].weight.grad.fill_(torch.nan)
            net[3].weight.grad = None
        nn.utils.clip_grad_norm_(pair.nets[0].parameters(), clip)
        pair.plain.step()
        pair.flat.step(clip=clip)
        for mine, theirs in pair.parameters():
            assert torch.allclose(mine, theirs, rtol=1e-12)
            assert (mine.grad is None) == (theirs.grad is None)
            assert mine.grad is None or torch.allclose(mine.grad, theirs.grad, rtol=1e-12)  # type: ignore[arg-type]


def test_gradients_may_be_changed_and_exchanged(device: str) -> None:
    pair = Pair(device, lr=0.1, momentum=0.9)
    for _ in range(4):
        pair.zero_grad()
        pair.backward()
        for each in pair.nets:
            for p in each.parameters():
                if p.grad is not None:
                    p.grad.mul_(2)
            each[3].bias.grad = each[3].bias.grad + 1
            each[0].bias.grad = None
        pair.step()
        pair.assert_same()
    for net in pair.nets:  # as autograd leaves them
        net.zero_grad()
        net(torch.ones(2, 3, 4, 4, dtype=torch.float64, device=device)).square().sum().backward()
    pair.backward()
    for net in pair.nets:
        net[3].bias.grad = None
    pair.backward()
    pair.step()
    pair.assert_same()


def test_each_state_has_its_momenta_and_a_checkpoint_keeps_them(device: str) -> None:
    pair = Pair(device, lr=0.1, momentum=0.9)
    banks: list[list[Any]] = [[optimizer.state, defaultdict(dict)] for optimizer in pair.optimizers]
    for step in range(12):
        for optimizer, own in zip(pair.optimizers, banks, strict=True):
            optimizer.state = own[step % 3 % 2]
        pair.zero_grad()
        pair.backward()
        pair.step()
        pair.assert_same()
        if step == 6:
            for i, optimizer in enumerate(pair.optimizers):
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
                banks[i][step % 3 % 2] = optimizer.state
        if step == 8:  # momentum that is taken away begins anew
            for optimizer, net in zip(pair.optimizers, pair.nets, strict=True):
                optimizer.state.pop(net[3].bias)


def test_groups_that_were_changed_are_torchs_matter(device: str) -> None:
    pair = Pair(device, lr=0.1, momentum=0.9)
    for step in range(6):
        pair.zero_grad()
        pair.backward()
        pair.step()
        pair.assert_same()
        if step == 2:
            for optimizer, net in zip(pair.optimizers, pair.nets, strict=True):
                optimizer.param_groups[0]["params"] = list(net[:3].parameters())
                optimizer.add_param_group({"params": list(net[3].parameters()), "lr": 0.5})


def test_a_graph_notices_that_its_weights_have_changed(device: str) -> None:
    pair = Pair(device, lr=0.1)
    loss = pair.nets[1](torch.ones(2, 3, 4, 4, dtype=torch.float64, device=device)).square().sum()
    pair.backward()
    pair.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
