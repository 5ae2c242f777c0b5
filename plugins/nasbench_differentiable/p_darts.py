"""P-DARTS: Chen et al., Progressive Differentiable Architecture Search: Bridging the Depth Gap between Search and
Evaluation, ICCV 2019."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Annotated, ClassVar

from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from nasbench import Choice, Method, Mixture, Run, hookimpl
from nasbench.data import Batch
from nasbench.hookspecs import CALLS
from nasbench_differentiable.relaxation import Relaxed

SKIP = "skip_connect"


class PDARTS(Relaxed, Method):
    """The search network grows stage by stage, and on every edge only the strongest operations go on to the next.

    Each stage is a DARTS search from fresh weights and fresh alpha; `train.epochs` is the length of one. Dropout on
    the skips falls within a stage, and at the end at most `max_skips` of them may stand in the normal cell.
    """

    calls: ClassVar[frozenset[str]] = CALLS["train"]  # stage by stage

    cells: list[Annotated[int, Field(ge=1)]] = Field([5, 11, 17], min_length=1)
    """Cells of the search network in each stage."""
    kept: list[Annotated[int, Field(ge=3)]] = Field([5, 3])
    """How many operations of an edge go on to the next stage; with fewer than 3 it could be none and a skip alone."""
    dropout: list[Annotated[float, Field(ge=0, lt=1)]] = Field([0.0, 0.4, 0.7])
    """Dropout on the skips at the start of each stage."""
    dropout_decay: float = Field(0.2, ge=0)
    """After the warm-up the dropout is multiplied by exp(-dropout_decay) each epoch."""
    warmup: int = Field(10, ge=0)
    """Epochs of a stage for which only the weights are trained."""
    max_skips: int | None = Field(2, ge=0)
    """M: how many skips may stand in the normal cell; null does not restrict them."""
    arch_lr: float = Field(6e-4, gt=0)
    """Adam's rate for the architecture parameters."""
    _alive: list[list[int]] = PrivateAttr(default_factory=list)
    _dropout: float = PrivateAttr(0.0)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        space = run.space
        if "cells" not in type(space).model_fields:
            return f"p-darts grows the search network cell by cell, and {space.name} has no number of cells to set."
        if any(space.with_(cells=n).relaxed.keys() != space.relaxed.keys() for n in self.cells):
            return f"p-darts grows deeper, and in this variant of {space.name} every cell has decisions of its own."
        if not len(self.cells) == len(self.kept) + 1 == len(self.dropout):
            return f"p-darts has {len(self.cells)} stages (cells), so kept needs one entry fewer and dropout as many."
        counts = [min(map(len, space.relaxed.values()), default=0), *self.kept]
        if counts != sorted(counts, reverse=True):
            return f"p-darts.kept = {self.kept} must not grow, and an edge of {space.name} has {counts[0]} operations."
        return super().refuse(run)

    # ------------------------------------------------------------------ stages

    @hookimpl
    def train(self, run: Run) -> bool | None:
        if run.parent is not None:
            return None  # a stage is trained as DARTS is
        alive = [list(range(len(options))) for options in run.space.relaxed.values()]
        for i, cells in enumerate(self.cells):
            part = run.child(f"stage-{i}", run.space.with_(cells=cells))
            search = next(plugin for plugin in part.plugins.values() if isinstance(plugin, PDARTS))
            search._alive, search._dropout = alive, self.dropout[i]
            part.hook.train(run=part)
            self._alive, self._alphas = search._alive, search._alphas
            if i < len(self.kept):
                alive = strongest(self.strength(run), alive, self.kept[i])
        return True

    def shapes(self, run: Run) -> list[int]:
        return [len(ops) for ops in self._alive]

    def mixture(self, run: Run, purpose: str) -> Mixture:
        """The softmax over the operations that are left, zeros for the others, which are then not computed."""
        return [
            alpha.new_zeros(len(options)).index_put((alpha.new_tensor(ops).long(),), alpha.softmax(0))
            for alpha, ops, options in zip(self._alphas, self._alive, run.space.relaxed.values(), strict=True)
        ]

    def architecture_gradient(self, run: Run, batch: Batch) -> list[Tensor] | None:
        return None if run.epoch < self.warmup else super().architecture_gradient(run, batch)

    @hookimpl(wrapper=True)
    def train_step(self, run: Run, batch: Batch) -> Generator[None, bool, bool]:
        for module in run.net.modules():
            if isinstance(module, nn.Dropout):
                module.p = self.skip_dropout(run)
        return (yield from super().train_step(run, batch))

    def skip_dropout(self, run: Run) -> float:
        """The dropout on skips in the current epoch: on a line towards 0 in the warm-up, then from its first value on
        exponentially."""
        epochs, epoch = run.recipe.train.epochs, run.epoch
        if epoch < self.warmup:
            return self._dropout * (epochs - epoch - 1) / epochs
        return self._dropout * math.exp(-self.dropout_decay * (epoch - self.warmup))

    # ------------------------------------------------------------------ the architecture

    def strength(self, run: Run) -> Mixture:
        return [weights.detach() for weights in self.mixture(run, "select")]

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        """While too many skips stand in the normal cell, the weakest loses its weight and the space reads again."""
        weights = self.strength(run)
        edges = [
            (e, options.index(SKIP))
            for e, (name, options) in enumerate(run.space.relaxed.items())
            if SKIP in options and not name.startswith("reduce")
        ]
        while True:
            arch = run.space.discretize(weights)
            # A skip is in the architecture if that becomes another one without it.
            used = [(e, op) for e, op in edges if run.space.discretize(without(weights, e, op)) != arch]
            if self.max_skips is None or len(used) <= self.max_skips:
                return [Choice(arch, selected_on="architecture parameters")]
            weights = without(weights, *min(used, key=lambda at: float(weights[at[0]][at[1]])))


def strongest(weights: Mixture, alive: list[list[int]], count: int) -> list[list[int]]:
    """Of each decision so many of the options that are left, the heaviest, in their order."""
    return [sorted(sorted(ops, key=lambda op: -float(w[op]))[:count]) for w, ops in zip(weights, alive, strict=True)]


def without(weights: Mixture, decision: int, option: int) -> Mixture:
    """A copy in which one option weighs nothing."""
    copy = [w.clone() for w in weights]
    copy[decision][option] = 0
    return copy
