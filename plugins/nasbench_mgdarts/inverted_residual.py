"""An inverted residual block whose filters and weights are units that can be gated, masked and cut out."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nasbench_mobile.mobilenet_v3_networks import Squeeze
from torch import Tensor, nn

from nasbench_mgdarts.layers import Cuts, Filters, Kernel, Thresholds

if TYPE_CHECKING:
    from nasbench_mobile.inverted_residual import Place


def passing(gates: Tensor, scaled: Tensor, alive: Tensor) -> Tensor:
    """Gates M(s), and s of the strongest unit that is left where none is above its threshold; all of one shape.

    The safety rule of pruning, step by step: where a block of a chain passes nothing, each batch norm behind it
    multiplies the gradient by 1 / sqrt(eps), and thresholds run away.
    """
    best = scaled.detach().masked_fill(~alive, -1.0)
    return gates + (best == best.max()) * ~(gates > 0).any() * scaled


class MiddleFilters(Filters):
    """Filters of which the strongest passes in any case."""

    def gate(self, threshold: Tensor | None) -> Tensor | None:
        """M(s(beta)) [middle]."""
        gate = super().gate(threshold)
        return None if gate is None or self.beta is None else passing(gate, self.beta.sigmoid(), self.mask)


class InvertedResidual(nn.Module):
    """Expand to `middle` filters, depthwise convolution, squeeze-and-excitation where the place has it, project.

    One gate stands for a middle filter, behind the depthwise convolution's batch norm: both activations are 0 at 0, so
    a filter that is gone contributes nothing from there on. Squeeze-and-excitation is `squeezed` wide inside.
    """

    def __init__(self, place: Place, kernel: int, middle: int, squeezed: int, searched: bool) -> None:
        super().__init__()
        self.expand = Kernel(place.in_channels, middle, 1)
        self.norm1 = nn.BatchNorm2d(middle)
        self.depth = Kernel(middle, middle, kernel, place.stride, depthwise=True)
        self.filters = MiddleFilters(middle, searched)
        self.squeeze = Squeeze(middle, squeezed) if place.squeeze else nn.Identity()
        self.project = Kernel(middle, place.out_channels, 1)
        self.norm3 = nn.BatchNorm2d(place.out_channels)
        self.act = nn.Hardswish() if place.hard_swish else nn.ReLU()
        self.residual = place.stride == 1 and place.in_channels == place.out_channels

    def forward(self, x: Tensor, thresholds: Thresholds, scale: Tensor | None) -> Tensor:
        y = self.act(self.norm1(self.expand(x, thresholds.weights)))
        y = self.act(self.filters(self.depth(y, thresholds.weights), thresholds.filters, None))
        y = self.norm3(self.project(self.squeeze(y), thresholds.weights))
        if self.residual:
            y = x + y
        return cast(Tensor, y if scale is None else y * scale)

    def live(self) -> list[Tensor]:
        """The masks, bool, of the weights in filters that are left, one per kernel."""
        rows = self.filters.mask
        return [self.expand.mask[rows] > 0, self.depth.mask[rows] > 0, self.project.mask[:, rows] > 0]

    def cost(self, weight: Tensor) -> Tensor:
        """The kernels' weights that are left, each filter's times its `weight` [middle]."""
        own = self.expand.mask.flatten(1).sum(1) + self.depth.mask.flatten(1).sum(1)
        return ((own + self.project.mask.flatten(1).sum(0)) * weight).sum()

    def cut(self) -> Cuts:
        """For each weight of the block without its masked filters, which part of the old one it is."""
        rows = self.filters.mask.nonzero()[:, 0]
        cuts: Cuts = dict.fromkeys((f"norm1.{n}" for n in ("weight", "bias", "running_mean", "running_var")), rows)
        parts = {"expand": rows, "depth": rows, "project": (slice(None), rows)}
        cuts |= {f"{part}.{name}": index for part, index in parts.items() for name in ("weight", "mask")}
        if isinstance(self.squeeze, Squeeze):
            cuts |= {"squeeze.reduce.weight": (slice(None), rows)}
            cuts |= {"squeeze.expand.weight": rows, "squeeze.expand.bias": rows}
        return cuts | {f"filters.{name}": index for name, index in self.filters.cut(rows).items()}
