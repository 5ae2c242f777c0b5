"""The plain network of one architecture of the MobileNetV3 space."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from nasbench_mobile.mobilenet_v3 import EXPANSIONS, KERNELS, UNITS

if TYPE_CHECKING:
    from nasbench import Arch
    from nasbench_mobile.inverted_residual import Place
    from nasbench_mobile.mobilenet_v3 import MobileNetV3


def conv_norm(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution without a bias and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(outputs)


class Squeeze(nn.Module):
    """Squeeze-and-excitation: scales each channel by a gate computed from the means of all."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class Block(nn.Module):
    """An inverted residual block: expand, depthwise, squeeze-and-excitation where the place has it, project."""

    def __init__(self, place: Place, kernel: int, expansion: int) -> None:
        super().__init__()
        middle = place.middle(expansion)
        self.expand, self.norm1 = conv_norm(place.in_channels, middle)
        self.depthwise, self.norm2 = conv_norm(middle, middle, kernel, place.stride, middle)
        self.squeeze = Squeeze(middle, place.squeezed(expansion)) if place.squeeze else nn.Identity()
        self.project, self.norm3 = conv_norm(middle, place.out_channels)
        self.act = nn.Hardswish() if place.hard_swish else nn.ReLU()
        self.residual = place.stride == 1 and place.in_channels == place.out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.expand(x)))
        y = self.squeeze(self.act(self.norm2(self.depthwise(y))))
        y = self.norm3(self.project(y))
        return x + y if self.residual else cast(Tensor, y)


class Network(nn.Module):
    """The plain network of an architecture: images [B,C,H,W] -> logits [B,K]."""

    Block: ClassVar[type[Block]] = Block

    def __init__(self, space: MobileNetV3, arch: Arch) -> None:
        super().__init__()
        stem, last, feature, head = map(space.channels, (16, 160, 960, 1280))
        self.stem = nn.Sequential(*conv_norm(space.image[0], stem, 3, space.strides[0]), nn.Hardswish())
        self.first = nn.Sequential(*conv_norm(stem, stem, 3, groups=stem), nn.ReLU(), *conv_norm(stem, stem))
        there = {i: (KERNELS[k], EXPANSIONS[e]) for i, k, e in space.blocks(arch)}
        self.units = nn.ModuleList(
            nn.ModuleList(self.Block(space.places[i], *there[i]) for i in range(u * 4, u * 4 + 4) if i in there)
            for u in range(UNITS)
        )
        self.feature = nn.Sequential(*conv_norm(last, feature), nn.Hardswish())
        self.head = nn.Sequential(nn.Conv2d(feature, head, 1, bias=False), nn.Hardswish(), nn.Flatten())
        self.dropout = nn.Dropout(space.dropout)
        self.classifier = nn.Linear(head, space.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # by fan-out, as once-for-all starts
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.open(images)
        for unit in self.units:
            for block in cast(nn.ModuleList, unit):
                x = block(x)
        return self.close(x)

    def open(self, images: Tensor) -> Tensor:
        """What comes before the first unit."""
        x = self.stem(images)
        return cast(Tensor, x + self.first(x))

    def close(self, x: Tensor) -> Tensor:
        """What comes after the last unit."""
        x = self.head(self.feature(x).mean((2, 3), keepdim=True))
        return cast(Tensor, self.classifier(self.dropout(x)))
