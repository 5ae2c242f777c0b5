"""The networks of the tiny space."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from nasbench_tiny.tiny import BOTTLENECK, LINEAR, SKIP

if TYPE_CHECKING:
    from nasbench import Arch, Mixture
    from nasbench_tiny.tiny import Tiny


def operation(op: int, width: int) -> nn.Module:
    """What a layer adds to its input; a skip adds nothing."""
    if op == LINEAR:
        return nn.Sequential(nn.ReLU(), nn.Linear(width, width))
    return nn.Sequential(nn.ReLU(), nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, width))


class Supernet(nn.Module):
    """`net(images [B,C,H,W], archs) -> logits [n,B,K]`; archs are architectures or mixtures."""

    def __init__(self, space: Tiny) -> None:
        super().__init__()
        channels, height, width = space.image
        self.stem = nn.Linear(channels * height * width, space.width)
        self.layers = nn.ModuleList(
            nn.ModuleList(operation(op, space.width) for op in (LINEAR, BOTTLENECK)) for _ in space.choices
        )
        self.head = nn.Linear(space.width, space.classes)

    def forward(self, images: Tensor, archs: list[Arch] | list[Mixture]) -> Tensor:
        x = self.stem(images.flatten(1))
        return torch.stack([self._subnet(x, arch) for arch in archs])

    def _subnet(self, x: Tensor, arch: Arch | Mixture) -> Tensor:
        for layer, choice in zip(self.layers, arch, strict=True):
            operations = cast(nn.ModuleList, layer)
            if isinstance(choice, int):
                x = x if choice == SKIP else x + operations[choice - 1](x)
            elif isinstance(choice, Tensor):
                x = x + sum(choice[op] * operations[op - 1](x) for op in (LINEAR, BOTTLENECK) if choice[op] != 0)
        return cast(Tensor, self.head(torch.relu(x)))


class Network(nn.Module):
    """One architecture alone: images [B,C,H,W] -> logits [B,K]."""

    def __init__(self, space: Tiny, arch: Arch) -> None:
        super().__init__()
        channels, height, width = space.image
        self.stem = nn.Linear(channels * height * width, space.width)
        self.layers = nn.ModuleList(operation(op, space.width) for op in arch if op != SKIP)
        self.head = nn.Linear(space.width, space.classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images.flatten(1))
        for layer in self.layers:
            x = x + layer(x)
        return cast(Tensor, self.head(torch.relu(x)))
