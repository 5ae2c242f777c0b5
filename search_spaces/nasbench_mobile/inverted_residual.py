"""The arithmetic of inverted residual blocks: channels and exact costs."""

from __future__ import annotations

from typing import NamedTuple


def make_divisible(value: float) -> int:
    """The nearest multiple of 8, at least 8, that is no more than a tenth below the value.

    >>> [make_divisible(v) for v in (3, 20, 36, 10.2)]
    [8, 24, 40, 16]
    """
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


class Place(NamedTuple):
    """Where a block stands: what it must take and give, whatever architecture it is part of."""

    in_channels: int
    out_channels: int
    stride: int
    hard_swish: bool
    squeeze: bool
    """Whether it has squeeze-and-excitation."""
    in_area: int
    """Pixels of its input."""
    out_area: int

    def middle(self, expansion: int) -> int:
        """Channels of its depthwise convolution."""
        return make_divisible(self.in_channels * expansion)

    def squeezed(self, expansion: int) -> int:
        """Channels inside squeeze-and-excitation."""
        return make_divisible(self.middle(expansion) // 4)

    def cost(self, kernel: int, expansion: int) -> dict[str, int]:
        """Costs of the block (see `SearchSpace.cost`)."""
        m, s = self.middle(expansion), self.squeezed(expansion) if self.squeeze else 0
        expand, depthwise, project = self.in_channels * m, m * kernel**2, m * self.out_channels
        weights = expand + depthwise + project + 2 * m * s
        return {
            "params": weights + 4 * m + 2 * self.out_channels + (s + m if s else 0),
            "conv_weights": weights,
            "madds": expand * self.in_area + (depthwise + project) * self.out_area + 2 * m * s,
        }
