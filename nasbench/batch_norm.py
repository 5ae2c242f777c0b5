"""Whose mean and variance normalise a subnet while it is scored: `score.batch_norm`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nasbench.plugins import reachable

if TYPE_CHECKING:
    from nasbench.data import Batch
    from nasbench.running import Run
    from nasbench.space import Arch


class Tracked(TorchFunctionMode):
    """Inside, every batch norm takes the averages that its module kept while it was trained."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.without = 0
        """Batch norms since the mode was entered, and how many of them keep no averages."""

    def __enter__(self) -> Any:
        self.calls = self.without = 0
        return super().__enter__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.batch_norm:  # nn.BatchNorm2d calls it too
            return func(*args, **(kwargs or {}))
        self.calls += 1
        return self.normalise(*args, **(kwargs or {}))

    def normalise(self, x: Tensor, mean: Any, var: Any, weight: Any, bias: Any, eps: float, **_: Any) -> Tensor:
        """What stands for `F.batch_norm(x, ...)`."""
        self.without += mean is None
        return F.batch_norm(x, mean, var, weight, bias, training=mean is None, eps=eps)


class Recalibrated(Tracked):
    """Inside, every batch norm takes statistics learnt beforehand: the mean over batches of their means and variances.

    A batch norm is known by its place among those of a pass, which is the same for the same subnets. So a network
    whose batch norms remember nothing, and several subnets at once, need nothing of their own for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.statistics: list[tuple[Tensor, Tensor]] = []
        self.learnt, self.learning = 0, True

    def learn(self, forward: Callable[[Tensor], Tensor], batches: Iterator[Batch]) -> None:
        """Pass these batches through, then hold on to what was seen."""
        for self.learnt, batch in enumerate(batches):
            with self:
                forward(batch.images)
        self.learning = False

    def normalise(self, x: Tensor, mean: Any, var: Any, weight: Any, bias: Any, eps: float, **_: Any) -> Tensor:
        """The first pass makes room for a batch norm's statistics."""
        if self.calls > len(self.statistics):
            exact = torch.promote_types(x.dtype, torch.float32)
            self.statistics.append((x.new_zeros(x.shape[1], dtype=exact), x.new_zeros(x.shape[1], dtype=exact)))
        mean, var = self.statistics[self.calls - 1]
        # torch keeps the average itself: the k-th batch enters with weight 1/k.
        return F.batch_norm(x, mean, var, weight, bias, self.learning, 1 / (self.learnt + 1), eps)


def subnets(run: Run, archs: list[Arch]) -> Callable[[Tensor], Tensor]:
    """The function from images [B,C,H,W] to logits [n,B,K] of these subnets, batch norm as the recipe says.

    Call it without gradients.
    """

    def forward(images: Tensor) -> Tensor:
        return run.forward(images, archs)

    if run.recipe.score.batch_norm == "batch":
        return forward
    mode = Tracked()
    if run.recipe.score.batch_norm == "recalibrated":
        mode = Recalibrated()
        mode.learn(forward, recalibration_batches(run))

    def inside(images: Tensor) -> Tensor:
        with mode:
            return forward(images)

    return inside


def recalibration_batches(run: Run) -> Iterator[Batch]:
    """Training batches, augmented, the same for every subnet; a last one that is smaller is left out."""
    size, count = run.recipe.score.batch_size, run.recipe.score.recalibration_images or len(run.data.train)
    order = torch.randperm(len(run.data.train), generator=run.generator("recalibration", step=0))[:count]
    for i, rows in enumerate(order.split(size)):
        if len(rows) == min(size, count):
            yield run.data.training_batch(rows.to(run.device), run.generator("recalibration augment", step=i))


def refuse(run: Run) -> str | None:
    """Why the recipe's batch norm cannot be had: one pass through a fresh supernet tells."""
    settings = run.recipe.score
    if settings.batch_norm == "batch" or run.parent is not None or "score" not in reachable(run.manager):
        return None
    if (settings.recalibration_images or 0) > len(run.data.train):
        return (
            f"score.recalibration_images = {settings.recalibration_images} is more than the {len(run.data.train)} "
            f"training images."
        )
    asked = f"score.batch_norm = {settings.batch_norm}"
    run.net, seen = run.hook.build_supernet(run=run), Tracked()
    with torch.no_grad(), seen:
        images = run.data.training_batch(torch.arange(2, device=run.device), run.generator("recalibration")).images
        run.forward(images, [run.space.sample(run.rng("recalibration"))])
    run.net = None
    if not seen.calls:
        return f"{asked} changes batch norm, and the supernet of {run.space.name} has none; leave it at batch."
    if settings.batch_norm == "tracked" and seen.without:
        return (
            f"{asked} needs running averages, and the supernet of {run.space.name} keeps none; "
            f"use recalibrated or batch."
        )
    return None
