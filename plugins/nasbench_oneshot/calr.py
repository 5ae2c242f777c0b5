"""CaLR: complexity-aware learning rates, from Subnet-Aware Dynamic Supernet Training for NAS, CVPR 2025."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from typing import Literal

from pydantic import Field, PrivateAttr

from nasbench import Arch, Modifier, Run, hookimpl

# exp needs a complexity in millions: exp(1.5e6) is no number.
SHAPES: dict[str, Callable[[float], float]] = {
    "log": math.log,
    "linear": float,
    "exp": lambda complexity: math.exp(complexity / 1e6),
}


def decay_ratio(complexity: float, c_min: float, c_max: float, gamma_prime: float, g: str = "log") -> float:
    """gamma(alpha) = omega g(C(alpha)) + tau: the smaller the subnet, the faster its rate decays (Eq. 4).

    `complexity` lies in [c_min, c_max]; the ratio falls from gamma_prime to 1/gamma_prime.

    >>> [round(decay_ratio(c, 72_752, 1_524_272, 4.0), 6) for c in (72_752, 99_632, 1_524_272)]
    [4.0, 3.61242, 0.25]
    """
    shape, low, high = SHAPES[g], 1 / gamma_prime, gamma_prime
    omega = -(high - low) / (shape(c_max) - shape(c_min))
    tau = low - omega * shape(c_max)
    return omega * shape(complexity) + tau


class CaLR(Modifier):
    """The learning rate of a subnet is eta0 (1 - t/T)^gamma(alpha) (Eq. 3)."""

    gamma_prime: float = Field(4.0, ge=1)
    """Largest decay ratio; the smallest is its inverse. The paper takes 4 on NAS-Bench-201, 3 on MobileNet."""
    g: Literal["log", "linear", "exp"] = "log"
    """Shape of the decay ratio over complexity (supplement, Table E)."""
    complexity: Literal["conv_weights", "params", "madds"] = "conv_weights"
    """What complexity is (supplement, Table F). The official code counts weights only."""
    matched: bool = False
    """Control: every subnet gets the mean ratio of the space, so that only the lower average rate remains."""
    _range: tuple[int, int] | None = PrivateAttr(None)
    _mean: float | None = PrivateAttr(None)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        low, high = run.space.cost_range(self.complexity)
        return (
            f"calr needs subnets of different {self.complexity}; in {run.space.name} all are equal."
            if low == high
            else None
        )

    def gamma(self, run: Run, arch: Arch) -> float:
        """The decay ratio of a subnet; the extremes are those of the whole space, also in a part of it."""
        if self.matched:
            return self.mean(run)
        if self._range is None:
            self._range = run.space.cost_range(self.complexity)
        return decay_ratio(run.space.cost(arch)[self.complexity], *self._range, self.gamma_prime, self.g)

    def mean(self, run: Run) -> float:
        """The mean ratio over the whole space; over 10,000 random architectures where it has more than 100,000."""
        if self._mean is None:
            root, rng = run.space.root, random.Random(0)
            few = root.size <= 100_000
            archs = root.architectures() if few else (root.sample(rng) for _ in range(10_000))
            each = self.model_copy(update={"matched": False})
            self._mean = statistics.fmean(each.gamma(run, arch) for arch in archs)
        return self._mean

    @hookimpl
    def learning_rates(self, run: Run, archs: list[Arch]) -> list[float]:
        return [run.recipe.train.lr * (1 - run.progress) ** self.gamma(run, arch) for arch in archs]
