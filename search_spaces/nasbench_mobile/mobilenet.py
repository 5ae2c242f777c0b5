"""The MobileNet space of ProxylessNAS: Cai, Zhu and Han, ProxylessNAS, ICLR 2019, as single-path methods use it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from nasbench import Arch, SearchSpace
from nasbench_mobile.inverted_residual import Place, make_divisible

if TYPE_CHECKING:
    import torch

#: Kernel size and expansion ratio of the blocks, in the order of the options; skip, where it is one, comes after.
BLOCKS = ((3, 3), (3, 6), (5, 3), (5, 6), (7, 3), (7, 6))
NAMES, SKIP = tuple(f"k{kernel}e{expansion}" for kernel, expansion in BLOCKS), len(BLOCKS)
#: Channels and number of layers of the six stages.
STAGES = ((24, 4), (40, 4), (80, 4), (96, 4), (192, 4), (320, 1))


class MobileNet(SearchSpace):
    """21 layers, each one of six inverted residual blocks or, after the first of a stage, left out.

    A network is a 3x3 stem, a fixed separable block, six stages of layers, a 1x1 convolution and the classifier.
    """

    name: ClassVar[str] = "mobilenet"

    classes: int = Field(1000, ge=2)
    """Classes of the dataset; a run takes it from its dataset."""
    image: tuple[int, int, int] = (3, 224, 224)
    """Channels, height and width of an image; a run takes it from its dataset."""
    width: float = Field(1.0, gt=0)
    """Multiplies every layer's channels; the results are rounded to multiples of 8."""
    strides: tuple[int, int, int, int, int, int, int] = (2, 2, 2, 2, 1, 2, 1)
    """Strides of the stem and of the six stages' first layers. For images of 32x32 take [1, 1, 2, 2, 1, 2, 1]."""

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {f"layer{i}": (*NAMES, "skip") if skips else NAMES for i, (_, skips) in enumerate(self.layers, start=1)}

    # ------------------------------------------------------------------ structure and costs

    def channels(self, count: int) -> int:
        """A channel count of the published network at this width."""
        return make_divisible(count * self.width)

    @cached_property
    def areas(self) -> list[int]:
        """Pixels after the stem and after each stage."""
        _, height, width = self.image
        found = []
        for stride in self.strides:
            height, width = -(-height // stride), -(-width // stride)
            found.append(height * width)
        return found

    @cached_property
    def layers(self) -> list[tuple[Place, bool]]:
        """Where each layer's block stands, and whether it may be left out, as it may where it has a shortcut."""
        found, before = [], self.channels(16)
        for stage, (channels, count) in enumerate(STAGES):
            after, area, next_area = self.channels(channels), self.areas[stage], self.areas[stage + 1]
            found.append((Place(before, after, self.strides[stage + 1], False, False, area, next_area), False))
            found += [(Place(after, after, 1, False, False, next_area, next_area), True)] * (count - 1)
            before = after
        return found

    @cached_property
    def _layer_costs(self) -> list[list[dict[str, int]]]:
        nothing = {"params": 0, "conv_weights": 0, "madds": 0}
        return [[*(place.cost(*block) for block in BLOCKS), *[nothing] * skips] for place, skips in self.layers]

    @cached_property
    def _fixed_cost(self) -> dict[str, int]:
        """Costs of the stem, the first block, the last convolution and the classifier."""
        stem, first, last, feature = map(self.channels, (32, 16, 320, 1280))
        opening = self.image[0] * stem * 9 + stem * 9 + stem * first
        closing, flat = last * feature, feature * self.classes
        return {
            "params": opening + closing + flat + 2 * (2 * stem + first + feature) + self.classes,
            "conv_weights": opening + closing + flat,
            "madds": opening * self.areas[0] + closing * self.areas[-1] + flat,
        }

    def cost(self, arch: Arch) -> dict[str, int]:
        parts = [self._fixed_cost, *(costs[option] for costs, option in zip(self._layer_costs, arch, strict=True))]
        return {name: sum(part[name] for part in parts) for name in self._fixed_cost}

    def cost_range(self, name: str) -> tuple[int, int]:
        """Layers cost independently of each other."""
        options = [[cost[name] for cost in costs] for costs in self._layer_costs]
        fixed = self._fixed_cost[name]
        return fixed + sum(map(min, options)), fixed + sum(map(max, options))

    # ------------------------------------------------------------------ networks

    def supernet(self) -> torch.nn.Module:
        from nasbench_mobile.mobilenet_networks import Supernet

        return Supernet(self)

    def build(self, arch: Arch) -> torch.nn.Module:
        from nasbench_mobile.mobilenet_networks import Network

        return Network(self, arch)
