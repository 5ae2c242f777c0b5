"""The networks of the MobileNet space: the weight-sharing supernet, and one architecture alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch import Tensor, nn

from nasbench_mobile.mobilenet import BLOCKS, SKIP

if TYPE_CHECKING:
    from nasbench import Arch, Mixture
    from nasbench_mobile.inverted_residual import Place
    from nasbench_mobile.mobilenet import MobileNet

Norm: TypeAlias = Callable[[int], nn.Module]


def conv_norm(
    norm: Norm, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    """A convolution without a bias and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, norm(outputs)


class Block(nn.Sequential):
    """An inverted residual block: expand, depthwise, project; plus its input where it has a shortcut."""

    def __init__(self, norm: Norm, place: Place, shortcut: bool, kernel: int, expansion: int) -> None:
        middle = place.middle(expansion)
        super().__init__(
            *(*conv_norm(norm, place.in_channels, middle), nn.ReLU6()),
            *(*conv_norm(norm, middle, middle, kernel, place.stride, middle), nn.ReLU6()),
            *conv_norm(norm, middle, place.out_channels),
        )
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return x + y if self.shortcut else cast(Tensor, y)


class Frame(nn.Module):
    """What every network of the space has before and after its layers."""

    def __init__(self, space: MobileNet, norm: Norm) -> None:
        super().__init__()
        stem, first, last, feature = map(space.channels, (32, 16, 320, 1280))
        self.opening = nn.Sequential(
            *(*conv_norm(norm, space.image[0], stem, 3, space.strides[0]), nn.ReLU6()),
            *(*conv_norm(norm, stem, stem, 3, groups=stem), nn.ReLU6()),
            *conv_norm(norm, stem, first),
        )
        self.closing = nn.Sequential(*conv_norm(norm, last, feature), nn.ReLU6())
        self.classifier = nn.Linear(feature, space.classes)

    def close(self, x: Tensor) -> Tensor:
        """Logits [B,K] of the last layer's output."""
        return cast(Tensor, self.classifier(self.closing(x).mean((2, 3))))


class Network(Frame):
    """The plain network of an architecture: images [B,C,H,W] -> logits [B,K]."""

    def __init__(self, space: MobileNet, arch: Arch) -> None:
        super().__init__(space, nn.BatchNorm2d)
        layers = zip(space.layers, arch, strict=True)
        self.layers = nn.Sequential(*(Block(nn.BatchNorm2d, *at, *BLOCKS[o]) for at, o in layers if o != SKIP))

    def forward(self, images: Tensor) -> Tensor:
        return self.close(self.layers(self.opening(images)))


class Supernet(Frame):
    """Every block of every layer: `net(images [B,C,H,W], archs) -> logits [n,B,K]`; `archs` may be mixtures.

    Batch norm has no scale or shift and takes batch statistics always, so each subnet is normalised by its own.
    """

    def __init__(self, space: MobileNet) -> None:
        norm = partial(nn.BatchNorm2d, affine=False, track_running_stats=False)
        super().__init__(space, norm)
        self.layers = nn.ModuleList(nn.ModuleList(Block(norm, *at, *b) for b in BLOCKS) for at in space.layers)

    def forward(self, images: Tensor, archs: Sequence[Arch | Mixture]) -> Tensor:
        x = self.opening(images)
        return torch.stack([self.close(self.through(x, arch)) for arch in archs])

    def through(self, x: Tensor, arch: Arch | Mixture) -> Tensor:
        """The layers of one subnet, or of one mixture, whose exact zeros are not computed."""
        for layer, choice in zip(self.layers, cast("Sequence[int | Tensor]", arch), strict=True):
            blocks = cast(nn.ModuleList, layer)
            if isinstance(choice, Tensor):
                used = [(w, o) for o, w in enumerate(choice) if w.detach() != 0]
                x = cast(Tensor, sum(w * (x if o == SKIP else blocks[o](x)) for w, o in used))
            elif choice != SKIP:
                x = blocks[choice](x)
        return x
