"""The networks of the space slim-mlp."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from nasbench import Arch
    from slim_mlp import SlimMLP


def network(sizes: list[int]) -> nn.Sequential:
    """One architecture alone: images [B,C,H,W] -> logits [B,K]."""
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.ReLU(), nn.Linear(a, b))]
    return nn.Sequential(nn.Flatten(), *layers[1:])


class Supernet(nn.Module):
    """The widest network; narrower ones are its first units: `net(images [B,C,H,W], archs) -> logits [n,B,K]`."""

    def __init__(self, space: SlimMLP) -> None:
        super().__init__()
        self.space = space
        widest = space.sizes(tuple(len(names) - 1 for names in space.choices.values()))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widest))

    def forward(self, images: Tensor, archs: list[Arch]) -> Tensor:
        return torch.stack([self.subnet(images.flatten(1), arch) for arch in archs])

    def subnet(self, x: Tensor, arch: Arch) -> Tensor:
        """Logits [B,K] of one architecture."""
        for i, (layer, units) in enumerate(zip(self.layers, self.space.sizes(arch)[1:], strict=True)):
            assert isinstance(layer, nn.Linear)
            x = F.linear(torch.relu(x) if i else x, layer.weight[:units, : x.shape[1]], layer.bias[:units])
        return x
