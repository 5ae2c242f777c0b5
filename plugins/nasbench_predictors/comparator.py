"""The neural architecture comparator (NAC) of CTNAS, section 3.2: is one architecture better than another?"""

from __future__ import annotations

import itertools
import re

import torch
from torch import Tensor, nn

from nasbench import Arch, SearchSpace


class Comparator(nn.Module):
    """Pr[a is better than b] = sigmoid(w_a . Z(a) + w_b . Z(b) + c), Z a graph convolutional network (Eq. 5 and 6).

    The nodes of the graph are the decisions: each holds an embedding of its option.
    """

    adjacency: Tensor

    def __init__(self, space: SearchSpace, width: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("adjacency", graph(list(space.choices)))
        names = list(dict.fromkeys(name for options in space.choices.values() for name in options))
        self.places = [torch.tensor([names.index(name) for name in options]) for options in space.choices.values()]
        self.embedding = nn.Embedding(len(names), width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.first, self.second = (
            nn.Linear(len(self.places) * width, 1),
            nn.Linear(len(self.places) * width, 1, bias=False),
        )

    def features(self, archs: list[Arch]) -> Tensor:
        """Z of architectures, [N, decisions * width]."""
        chosen = zip(self.places, zip(*archs, strict=True), strict=True)
        x = self.embedding(torch.stack([places[list(options)] for places, options in chosen], 1))
        for layer in self.layers:
            x = torch.relu(layer(self.adjacency @ x))
        return x.flatten(1)

    def forward(self, archs: list[Arch], others: list[Arch]) -> Tensor:
        """Logits [N,M] that each of N architectures is better than each of M others."""
        return self.first(self.features(archs)) + self.second(self.features(others)).T


def graph(decisions: list[str]) -> Tensor:
    """The normalised adjacency [D,D] of decisions: D^-1/2 (A + A' + I) D^-1/2.

    Edges of a cell, named `target<-source`, are adjacent where one leaves the node that the other enters; where the
    decisions are something else, say layers, each is adjacent to the next.
    """
    ends = [re.fullmatch(r"(.+)<-(.+)", name) for name in decisions]
    a = torch.eye(len(decisions))
    for i, j in itertools.permutations(range(len(decisions)), 2):
        one, two = ends[i], ends[j]
        follows = one[1] == two[2] if one and two else j == i + 1
        if follows:
            a[i, j] = a[j, i] = 1.0
    scale = a.sum(1).rsqrt()
    return scale[:, None] * a * scale
