"""The accuracy predictor and the evolution of once-for-all, over architectures as 0/1 codes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench import Arch, SearchSpace


class Predictor(nn.Module):
    """Accuracy from a one-hot code: three hidden layers of 400 with ReLU, in the spread it was fitted to."""

    base: Tensor
    spread: Tensor

    def __init__(self, inputs: int, width: int = 400) -> None:
        super().__init__()
        sizes = [inputs, width, width, width]
        hidden = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 1))
        self.register_buffer("base", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, codes: Tensor) -> Tensor:
        """Accuracies [N], from 0 to 1, of codes [N, inputs]."""
        return self.base + self.spread * self.layers(codes)[:, 0]


def fit(
    predictor: Predictor,
    codes: Tensor,
    accuracies: Tensor,
    rng: torch.Generator,
    *,
    epochs: int = 250,
    batch_size: int = 256,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
) -> float:
    """Fit to accuracies [N], from 0 to 1, by SGD with a cosine to 0.

    Returns the share of their variance that is not explained in the last epoch.
    """
    predictor.base.copy_(accuracies.mean())
    predictor.spread.copy_(accuracies.std().clamp(min=1e-6))
    sgd = torch.optim.SGD(predictor.parameters(), lr, momentum, weight_decay=weight_decay)
    total = epochs * -(-len(codes) // batch_size)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, total)
    for _ in range(epochs):
        errors = 0.0
        for rows in torch.randperm(len(codes), generator=rng).split(batch_size):
            loss = F.mse_loss(predictor(codes[rows]), accuracies[rows]) / predictor.spread**2
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            falling.step()
            errors += loss.item() * len(rows)
    return errors / len(codes)


def evolve(
    space: SearchSpace,
    score: Callable[[Sequence[Arch]], list[float]],
    legal: Callable[[Arch], bool],
    anyone: Callable[[], Arch],
    rng: random.Random,
    *,
    generations: int = 500,
    population: int = 100,
    parents: float = 0.25,
    mutated: float = 0.5,
    mutation: float = 0.1,
) -> Arch:
    """The architecture with the best score that evolution meets; every one it looks at is legal.

    Each generation the best quarter stay as parents; a half of the population are mutated parents, each decision drawn
    again with probability `mutation`, the other half crossed ones. `anyone` gives a random legal one; it stands
    in where a hundred tries have given no legal child.
    """
    known: dict[Arch, float] = {}

    def scored(archs: list[Arch]) -> list[Arch]:
        fresh = [a for a in dict.fromkeys(archs) if a not in known]
        known.update(zip(fresh, score(fresh), strict=True) if fresh else ())
        return sorted(archs, key=known.__getitem__, reverse=True)

    def child(make: Callable[[], Arch]) -> Arch:
        return next((arch for arch in (make() for _ in range(100)) if legal(arch)), None) or anyone()

    living = scored([anyone() for _ in range(population)])
    for _ in range(generations):
        best = living[: max(1, round(parents * population))]

        def mutate(best: list[Arch] = best) -> Arch:
            pairs = zip(rng.choice(best), space.options, strict=True)
            return tuple(rng.choice(options) if rng.random() < mutation else o for o, options in pairs)

        def cross(best: list[Arch] = best) -> Arch:
            return space.crossover(rng.choice(best), rng.choice(best), rng)

        count = round(mutated * population)
        children = [child(mutate) for _ in range(count)] + [child(cross) for _ in range(population - count)]
        living = scored(best + children)
    return living[0]
