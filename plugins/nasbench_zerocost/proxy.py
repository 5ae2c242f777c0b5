"""What the training-free proxies share: a network at initialisation, a batch of training images, one number."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nasbench import Arch, Method, Run, hookimpl
from nasbench.data import Batch

#: The score of a network that has none, as where no image reaches the logits: it ranks last. A finite number, so that
#: what is computed of scores stays finite.
LAST = -1e300


class Proxy(Method):
    """Ranks architectures by a number of their untrained networks; a proxy says which with `measure`."""

    scores_by: ClassVar[str] = "{name}, untrained"

    @abstractmethod
    def measure(self, run: Run, arch: Arch) -> float:
        """The proxy's number for an architecture, higher is better."""

    @hookimpl
    def train(self) -> bool:
        """There is nothing to train."""
        return True

    @hookimpl
    def score(self, run: Run, archs: list[Arch]) -> list[float]:
        values = [self.measure(run, arch) for arch in archs]
        return [value if math.isfinite(value) else LAST for value in values]

    def network(self, run: Run, arch: Arch) -> nn.Module:
        """The plain network of an architecture as it is initialised: by seed, stage and architecture alone."""
        with run.seeded(f"init {run.space.number(arch)}"):
            return run.to_device(run.space.build(arch)).train()


class ImageProxy(Proxy):
    """A proxy that looks at training images, the same for every architecture."""

    batch_size: int = Field(64, ge=2)
    """Training images of a batch."""

    @property
    def count(self) -> int:
        """Batches that are looked at."""
        return 1

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        needed, there = self.count * self.batch_size, len(run.data.train)
        return f"{run.recipe.method} looks at {needed} training images, and there are {there}." * (needed > there)

    def batches(self, run: Run) -> list[Batch]:
        """`count` batches of different training images, augmented as the recipe says, drawn once a run."""
        return training_batches(run, self.count, self.batch_size)


def training_batches(run: Run, count: int, size: int) -> list[Batch]:
    """So many batches of training images, none twice, augmented as the recipe says; the same throughout a run."""
    rows = torch.tensor(run.fixed_rng("proxy images").sample(range(len(run.data.train)), count * size))
    dtype = torch.float64 if run.recipe.engine.precision == "float64" else torch.float32
    found = []
    for i, part in enumerate(rows.split(size)):
        rng = torch.Generator().manual_seed(run.fixed_rng(f"proxy augment {i}").getrandbits(62))
        batch = run.data.training_batch(part.to(run.device), rng)
        found.append(replace(batch, images=batch.images.to(dtype)))
    return found


def weights(net: nn.Module) -> list[Tensor]:
    """The weights of convolutions and linear layers; no bias and no batch norm."""
    return [p for p in net.parameters() if p.ndim > 1]


def loss(net: nn.Module, batch: Batch) -> Tensor:
    """The cross-entropy of a network on a batch, a scalar."""
    return F.cross_entropy(net(batch.images), batch.labels)


def gradients(value: Tensor, of: list[Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    """The gradients of a scalar; zeros for what it does not depend on."""
    return torch.autograd.grad(value, of, create_graph=create_graph, materialize_grads=True)
