"""ResNet-18 as a channel space: He et al., Deep Residual Learning for Image Recognition, CVPR 2016."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from nasbench_backbones.channels import ChannelSpace, Layer

if TYPE_CHECKING:
    import torch


class ResNet18(ChannelSpace):
    """Twelve gates: one for each of the four residual streams, one between the two convolutions of each block."""

    name: ClassVar[str] = "resnet18"
    torchvision_name: ClassVar[str] = "resnet18"

    stem: Literal["auto", "cifar", "imagenet"] = "auto"
    """cifar: 3x3 convolution, stride 1; imagenet: 7x7, stride 2, then 3x3 max pooling, stride 2; auto: cifar for
    images up to 64 pixels."""

    @property
    def small(self) -> bool:
        """Whether the stem keeps the resolution."""
        return self.stem == "cifar" or (self.stem == "auto" and max(self.image[1:]) <= 64)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        colours, *sides = self.image

        def pixels(halvings: int) -> int:
            height, width = (-(-side // 2**halvings) for side in sides)
            return height * width

        start, w = 0 if self.small else 2, self.width
        kernel, halved = (3, 0) if self.small else (7, 1)
        found = [Layer("conv1", "bn1", False, kernel, "", "layer1", colours, w, pixels(halved))]
        for i in range(4):
            stage, c = f"layer{i + 1}", w << i
            for j in range(2):
                block, size = f"{stage}.{j}", pixels(start + i)
                before, inputs = (f"layer{i}", c // 2) if i and not j else (stage, c)
                found += [
                    Layer(f"{block}.conv1", f"{block}.bn1", False, 3, before, block, inputs, c, size),
                    Layer(f"{block}.conv2", f"{block}.bn2", False, 3, block, stage, c, c, size),
                ]
                if before != stage:
                    shortcut = f"{block}.downsample"
                    found.append(Layer(f"{shortcut}.0", f"{shortcut}.1", False, 1, before, stage, inputs, c, size))
        return (*found, Layer("fc", "", True, 1, "layer4", "", 8 * w, self.classes, 1))

    def make(self, widths: Mapping[str, int], running_statistics: bool = True) -> torch.nn.Module:
        from nasbench_backbones.networks import ResNet

        return ResNet(self, widths, running_statistics)
