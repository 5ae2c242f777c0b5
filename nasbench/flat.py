"""SGD on parameters that lie in one tensor, so that a step is a handful of operations however many they are."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress, repeat
from operator import is_, is_not
from typing import Any

import torch
from torch import Tensor, nn

from nasbench.data import to_device

#: Parameters begin at multiples of it, since kernels that read several numbers at a time need that.
ALIGNED = 4


def places(parameters: Iterable[Tensor]) -> tuple[list[tuple[Any, Any, int]], int]:
    """Shape, strides and offset of each parameter in one tensor of all, in which it lies as in memory now; its size N.

    >>> places([torch.ones(70), torch.ones(2, 3)])
    ([(torch.Size([70]), (1,), 0), (torch.Size([2, 3]), (3, 1), 72)], 80)
    """
    found, end = [], 0
    for parameter in parameters:
        found.append((parameter.shape, parameter.stride(), end))
        end += parameter.numel() + -parameter.numel() % ALIGNED
    return found, end


class FlatSGD(torch.optim.SGD):
    """torch's SGD, to the last bit on a CPU, on parameters that it has moved into one tensor.

    For everyone else parameters, gradients and momenta are as usual: a parameter's `grad` and `momentum_buffer` are
    parts of the whole, and of no parameter without a gradient is anything moved. Only whoever keeps a gradient longer
    than its step has to clone it, and each `state` that ever was keeps its memory.
    """

    def __init__(self, net: nn.Module, **settings: Any) -> None:
        super().__init__(net.parameters(), **settings)
        self.net, self.given = net, list(net.parameters())
        self.trained = [p for p in self.given if p.requires_grad]
        self.places, size = places(self.trained)
        self.whole = self.trained[0].new_zeros(size)
        """All parameters [N]."""
        for parameter, view in zip(self.trained, self.views(self.whole), strict=True):
            parameter.data = view.copy_(parameter.data)
        self.gradient = torch.zeros_like(self.whole)
        """All gradients [N]; of a parameter without one it holds anything."""
        self.grads = self.views(self.gradient)
        offsets = torch.tensor([*(offset for _, _, offset in self.places), size])
        self.owner = torch.arange(len(self.places)).repeat_interleave(offsets.diff()).to(self.whole.device)
        """Which parameter each number is of, int64 [N]."""
        self.banks: dict[int, tuple[Any, Tensor, list[Tensor]]] = {}
        """By the id of each `state` there has been: itself, all its momenta [N] and each parameter's."""
        self.last = b"", self.whole

    def views(self, whole: Tensor) -> list[Tensor]:
        """The part of each parameter in a tensor [N]."""
        return [whole.as_strided(*place) for place in self.places]

    def having(self, which: bytes) -> Tensor:
        """The numbers that belong to these parameters [P], bool [N]."""
        if which != self.last[0]:
            mask = to_device(torch.frombuffer(bytearray(which), dtype=torch.bool), self.owner.device)
            self.last = which, mask.index_select(0, self.owner)
        return self.last[1]

    def present(self) -> bytes:
        """Which parameters have a gradient, [P]; what is not part of `gradient`, as a plugin's own, becomes so."""
        found = [p.grad for p in self.trained]
        present = bytes(map(is_not, found, repeat(None)))
        if present.count(1) != sum(map(is_, found, self.grads)):
            each = zip(self.trained, self.grads, found, strict=True)
            others = [(p, view, grad) for p, view, grad in each if grad is not None and grad is not view]
            parameters, views, grads = zip(*others, strict=True)
            torch._foreach_copy_(views, grads)
            for parameter, view in zip(parameters, views, strict=True):
                parameter.grad = view
        return present

    @torch.no_grad()
    def add(self, gradient: Tensor, used: bytes) -> None:
        """Add a gradient [N] to that of the used parameters [P], as a backward pass does; for the others it is zero."""
        present = self.present()
        if any(present):
            gradient = gradient + torch.where(self.having(present), self.gradient, 0.0)
        self.gradient.copy_(gradient)
        for parameter, view in compress(zip(self.trained, self.grads, strict=True), used):
            parameter.grad = view

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's, in less time."""
        if not set_to_none or not self.as_one():
            return super().zero_grad(set_to_none)
        for parameter in self.trained:
            parameter.grad = None
        return None

    def as_one(self) -> bool:
        """Whether the parameters are still to be treated alike, in a way that `step` knows."""
        group, *others = self.param_groups
        mine = len(group["params"]) == len(self.given) and all(map(is_, group["params"], self.given))
        return mine and not (others or group["dampening"] or group["maximize"])

    def momenta(self, present: bytes) -> Tensor:
        """All momenta [N] of the `state` of now, for which a plugin or a checkpoint may have put in another."""
        if id(self.state) not in self.banks:
            whole = torch.zeros_like(self.whole)
            self.banks[id(self.state)] = self.state, whole, self.views(whole)
        state, whole, views = self.banks[id(self.state)]
        for parameter, view in compress(zip(self.trained, views, strict=True), present):
            own = state[parameter]
            buffer = own.get("momentum_buffer")
            if buffer is not view:  # its first gradient, or out of a checkpoint
                own["momentum_buffer"] = view.zero_() if buffer is None else view.copy_(buffer)
        return whole

    @torch.no_grad()
    def step(self, closure: Any = None, clip: float | None = None) -> Any:
        """torch's arithmetic in torch's order, on all parameters at once; those without a gradient stay as they are.
        Before it the gradient's norm is limited to `clip`."""
        if closure is not None or not self.as_one():
            if clip is not None:
                nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], clip)
            return super().step(closure)
        present = self.present()
        (group,), having, slope = self.param_groups, self.having(present), self.gradient
        if clip is not None:
            norm = torch.linalg.vector_norm(slope.masked_fill_(~having, 0.0))
            slope.mul_((clip / (norm + 1e-6)).clamp(max=1.0))
        if group["weight_decay"]:
            slope = slope.add(self.whole, alpha=group["weight_decay"])
        if group["momentum"]:
            momenta = self.momenta(present)
            torch.where(having, momenta.mul(group["momentum"]).add_(slope), momenta, out=momenta)
            slope = slope.add(momenta, alpha=group["momentum"]) if group["nesterov"] else momenta
        torch.where(having, self.whole.add(slope, alpha=-group["lr"]), self.whole, out=self.whole)
        # Views by `data` do not share the whole's version.
        torch.autograd.graph.increment_version(list(compress(self.trained, present)))
        return None
