"""The operations of a cell with their filters and weights as units that can be gated, masked and cut out.

Each is called as `operation(x, thresholds, scale)`: thresholds of its filters and weights, and what its output is
multiplied by; all None in a final network. Gates are folded into the batch norm, so they take no activation memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from nasbench_cells.darts import AVG_POOL, MAX_POOL, OPERATIONS, SKIP
from nasbench_cells.operations import padded_average
from torch import Tensor, nn

from nasbench_mgdarts.estimator import discretize

#: What is to be kept of a tensor, by its name inside a module.
Cuts = dict[str, Any]


class Thresholds(NamedTuple):
    """Scalars t_beta and t_omega of an operation; None where that granularity is not searched."""

    filters: Tensor | None = None
    weights: Tensor | None = None


class Filters(nn.Module):
    """The batch norm behind a convolution, whose channels are its filters: beta weighs them, `alive` is their mask."""

    def __init__(self, width: int, searched: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.beta = nn.Parameter(torch.zeros(width)) if searched else None
        self.alive: Tensor | None
        self.register_buffer("alive", torch.ones(width) if searched else None)

    @property
    def importance(self) -> Tensor:
        """s(beta), float [width], detached; without beta, equal."""
        return torch.ones_like(self.norm.weight.detach()) if self.beta is None else self.beta.detach().sigmoid()

    @property
    def mask(self) -> Tensor:
        """Which filters are left, bool [width]."""
        weight = self.norm.weight
        return torch.ones_like(weight, dtype=torch.bool) if self.alive is None else self.alive > 0

    def gate(self, threshold: Tensor | None) -> Tensor | None:
        """M(s(beta)) [width], 0 for what is pruned; None where filters are not searched."""
        if self.beta is None or self.alive is None:
            return None
        s = self.beta.sigmoid()
        return (s if threshold is None else discretize(s, threshold)) * self.alive

    def forward(self, x: Tensor, threshold: Tensor | None, scale: Tensor | None) -> Tensor:
        """Equation (5): M(s(beta)) times the normalised channel, times `scale`."""
        own = self.gate(threshold)
        gate = scale if own is None else own if scale is None else own * scale
        norm = self.norm
        if gate is None:
            return cast(Tensor, norm(x))
        return F.batch_norm(
            x,
            norm.running_mean,
            norm.running_var,
            norm.weight * gate,
            norm.bias * gate,
            self.training,
            cast(float, norm.momentum),
            norm.eps,
        )

    def cut(self, outputs: Tensor) -> Cuts:
        """For each weight of the layer without what is cut, which part of the old one it is."""
        names = [name for name in ("beta", "alive") if getattr(self, name) is not None]
        names += [f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
        return dict.fromkeys(names, outputs)


class Kernel(nn.Module):
    """The weights of a bias-free convolution and their mask."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, dilation: int = 1, depthwise: bool = False):
        super().__init__()
        groups = c_in if depthwise else 1
        made = nn.Conv2d(c_in, c_out, kernel, stride, dilation * (kernel // 2), dilation, groups, bias=False)
        self.weight = made.weight
        self.mask: Tensor
        self.register_buffer("mask", torch.ones_like(made.weight))
        self.stride, self.padding, self.dilation, self.depthwise = stride, made.padding, dilation, depthwise

    def forward(self, x: Tensor, threshold: Tensor | None) -> Tensor:
        weight = (self.weight if threshold is None else discretize(self.weight, threshold)) * self.mask
        groups = len(weight) if self.depthwise else 1
        return F.conv2d(x, weight, None, self.stride, cast(Any, self.padding), self.dilation, groups)

    def cut(self, index: Any) -> Cuts:
        """For each weight of the layer without what is cut, which part of the old one it is."""
        return {"weight": index, "mask": index}


class Conv(nn.Module):
    """ReLU, a depthwise and a pointwise convolution, batch norm: a dilated convolution, or half a separable one."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, dilation: int, searched: bool) -> None:
        super().__init__()
        self.depth = Kernel(c_in, c_in, kernel, stride, dilation, depthwise=True)
        self.point = Kernel(c_in, c_out, 1)
        self.filters = Filters(c_out, searched)

    def forward(self, x: Tensor, thresholds: Thresholds, scale: Tensor | None) -> Tensor:
        x = self.point(self.depth(F.relu(x), thresholds.weights), thresholds.weights)
        return cast(Tensor, self.filters(x, thresholds.filters, scale))

    @property
    def outputs(self) -> Filters:
        """The filters that make the output."""
        return self.filters

    def live(self, inputs: Tensor | None = None) -> list[Tensor]:
        """The masks, bool, of the weights in filters that are left, one per kernel; `inputs` [C_in] are the inputs'."""
        rows = self.filters.mask
        depth, point = self.depth.mask > 0, self.point.mask[rows] > 0
        return [depth, point] if inputs is None else [depth[inputs], point[:, inputs]]

    def cut(self, inputs: Tensor, outputs: Tensor) -> Cuts:
        """For each weight of the layer without what is cut, which part of the old one it is."""
        parts = {
            "depth": self.depth.cut(inputs),
            "point": self.point.cut((outputs[:, None], inputs)),
            "filters": self.filters.cut(outputs),
        }
        return {f"{part}.{name}": index for part, cuts in parts.items() for name, index in cuts.items()}


class SepConv(nn.Module):
    """A separable convolution: two halves; the first has `middle` filters."""

    def __init__(self, width: int, middle: int, kernel: int, stride: int, searched: bool) -> None:
        super().__init__()
        self.first = Conv(width, middle, kernel, stride, 1, searched)
        self.second = Conv(middle, width, kernel, 1, 1, searched)

    def forward(self, x: Tensor, thresholds: Thresholds, scale: Tensor | None) -> Tensor:
        return cast(Tensor, self.second(self.first(x, thresholds, None), thresholds, scale))

    @property
    def outputs(self) -> Filters:
        """The filters that make the output."""
        return self.second.filters

    def live(self) -> list[Tensor]:
        """As of `Conv`, of all four kernels."""
        return [*self.first.live(), *self.second.live(self.first.filters.mask)]

    def cut(self, inputs: Tensor, outputs: Tensor, middle: Tensor) -> Cuts:
        """For each weight of the layer without what is cut, which part of the old one it is."""
        halves = {"first": self.first.cut(inputs, middle), "second": self.second.cut(middle, outputs)}
        return {f"{half}.{name}": index for half, cuts in halves.items() for name, index in cuts.items()}


class Reduce(nn.Module):
    """Two 1x1 convolutions of stride 2 side by side, the second one pixel further; the first has `even` filters."""

    def __init__(self, c_in: int, width: int, even: int, searched: bool) -> None:
        super().__init__()
        self.even = nn.Conv2d(c_in, even, 1, 2, bias=False) if even else None
        self.odd = nn.Conv2d(c_in, width - even, 1, 2, bias=False) if even < width else None
        self.filters = Filters(width, searched)

    def forward(self, x: Tensor, thresholds: Thresholds, scale: Tensor | None) -> Tensor:
        x = F.relu(x)
        both = [conv(y) for conv, y in ((self.even, x), (self.odd, x[:, :, 1:, 1:])) if conv is not None]
        return cast(Tensor, self.filters(torch.cat(both, 1), thresholds.filters, scale))

    @property
    def outputs(self) -> Filters:
        """The filters that make the output."""
        return self.filters

    @property
    def even_count(self) -> int:
        """Filters of the first convolution."""
        return 0 if self.even is None else len(self.even.weight)

    def cut(self, inputs: Tensor, outputs: Tensor) -> Cuts:
        """For each weight of the layer without what is cut, which part of the old one it is."""
        count = self.even_count
        first, second = outputs[outputs < count], outputs[outputs >= count] - count
        cuts: Cuts = {"even.weight": (first[:, None], inputs)} if len(first) else {}
        cuts |= {"odd.weight": (second[:, None], inputs)} if len(second) else {}
        return cuts | {f"filters.{name}": index for name, index in self.filters.cut(outputs).items()}


class Point(nn.Module):
    """ReLU, a 1x1 convolution, batch norm: what brings an input of a cell to its width."""

    def __init__(self, c_in: int, width: int, searched: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, width, 1, bias=False)
        self.filters = Filters(width, searched)

    def forward(self, x: Tensor, thresholds: Thresholds, scale: Tensor | None) -> Tensor:
        return cast(Tensor, self.filters(self.conv(F.relu(x)), thresholds.filters, scale))

    @property
    def outputs(self) -> Filters:
        """The filters that make the output."""
        return self.filters

    def cut(self, inputs: Tensor, outputs: Tensor) -> Cuts:
        """For each weight of the layer without what is cut, which part of the old one it is."""
        cuts: Cuts = {"conv.weight": (outputs[:, None], inputs)}
        return cuts | {f"filters.{name}": index for name, index in self.filters.cut(outputs).items()}


class Plain(nn.Module):
    """Pooling, or a skip of stride 1: no filters. In a final network a batch norm follows pooling."""

    def __init__(self, op: int, width: int, stride: int, final: bool) -> None:
        super().__init__()
        self.op, self.stride = op, stride
        self.norm = nn.BatchNorm2d(width) if final and op != SKIP else None
        if op == AVG_POOL:
            self.average = padded_average(stride)

    def forward(self, x: Tensor, thresholds: Thresholds, scale: Tensor | None) -> Tensor:
        if self.op == AVG_POOL:
            x = self.average(x)
        elif self.op == MAX_POOL:
            x = F.max_pool2d(x, 3, self.stride, 1)
        if self.norm is not None:
            x = self.norm(x)
        return x if scale is None else x * scale

    def cut(self, inputs: Tensor, outputs: Tensor) -> Cuts:
        """For each weight of the layer without what is cut, which part of the old one it is."""
        return {}


def is_separable(op: int) -> bool:
    """Whether an operation is a separable convolution, the only one with a middle width."""
    return OPERATIONS[op].startswith("sep")


def make(op: int, width: int, number: int, stride: int, searched: bool, final: bool) -> nn.Module:
    """An operation; `number` is a separable convolution's middle width, or the even filters of a skip of stride 2."""
    if is_separable(op):
        return SepConv(width, number, int(OPERATIONS[op][-1]), stride, searched)
    if "conv" in OPERATIONS[op]:
        return Conv(width, width, int(OPERATIONS[op][-1]), stride, 2, searched)
    if op == SKIP and stride == 2:
        return Reduce(width, width, number, searched)
    return Plain(op, width, stride, final)


def convolutions(module: nn.Module) -> Iterator[Any]:
    """The searched convolutions inside a module, each once: what can say which of its weights are left."""
    for child in module.children():
        if hasattr(child, "live"):
            yield child
        else:
            yield from convolutions(child)


def kernels(module: nn.Module) -> list[Kernel]:
    """The kernels inside a module, whose weights are searched, in a fixed order."""
    return [m for m in module.modules() if isinstance(m, Kernel)]


def vectors(module: nn.Module) -> list[Filters]:
    """The vectors of filters inside a module, in a fixed order."""
    return [m for m in module.modules() if isinstance(m, Filters)]
