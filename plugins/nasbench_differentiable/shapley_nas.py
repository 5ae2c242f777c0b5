"""Shapley-NAS: Xiao et al., Discovering Operation Contribution for Neural Architecture Search, CVPR 2022."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from nasbench import Method, Mixture, Run, hookimpl
from nasbench_differentiable.relaxation import Mixed, heaviest_only


class ShapleyNAS(Mixed, Method):
    """The weights are trained on the softmax mixture; alpha follows no gradient but what each operation contributes to
    the validation accuracy: its Shapley value, estimated by taking the operations away in random orders."""

    warmup: float = Field(0.5, ge=0, lt=1)
    """Share of the epochs in which only the weights are trained."""
    samples: int = Field(10, ge=1)
    """Random orders of an estimate, one before each epoch after the warm-up."""
    images: int = Field(1024, ge=2)
    """Validation images on which the accuracy of an order is taken."""
    threshold: float = Field(0.5, ge=0, le=1)
    """An order ends once the accuracy is below this share of the whole network's: what is left contributes nothing."""
    estimate: Literal["mean", "mean_minus_std"] = "mean"
    """What is taken of an operation's contributions over the orders; the second is the official code's."""
    shapley_momentum: float = Field(0.8, ge=0, lt=1)
    """How much of the standardised values is carried over (mu)."""
    step_size: float = Field(0.1, gt=0)
    """How far alpha moves along them (epsilon)."""
    _values: list[Tensor] = PrivateAttr(default_factory=list)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        return heaviest_only(run) or super().refuse(run)

    @hookimpl
    def after_epoch(self, run: Run) -> None:
        if not self.warmup * run.recipe.train.epochs <= run.epoch + 1 < run.recipe.train.epochs:
            return
        found = torch.cat(self.contributions(run))
        spread = found.std(correction=1)
        standard = (found - found.mean()) / spread if spread > 0 else torch.zeros_like(found)
        parts = standard.split([len(alpha) for alpha in self._alphas])
        mu, before = self.shapley_momentum, self._values or [torch.zeros_like(part) for part in parts]
        self._values = [mu * old + (1 - mu) * new for old, new in zip(before, parts, strict=True)]
        for alpha, value in zip(self._alphas, self._values, strict=True):
            alpha.data.add_(self.step_size * value.to(alpha))

    def contributions(self, run: Run) -> list[Tensor]:
        """The estimated Shapley value (top-1, %) of each operation of each decision, float64."""
        players = [(i, o) for i, alpha in enumerate(self._alphas) for o in range(len(alpha))]
        found = torch.zeros(self.samples, len(players), dtype=torch.float64)
        for j in range(self.samples):
            rows = torch.randperm(len(run.data.valid), generator=run.generator(f"shapley images {j}"))[: self.images]
            left = self.mixture(run, "valid")
            whole = before = self.accuracy(run, left, rows)
            for place in run.rng(f"shapley {j}").sample(range(len(players)), len(players)):
                decision, option = players[place]
                left[decision] = left[decision].clone()
                left[decision][option] = 0  # the others keep their weights
                now = self.accuracy(run, left, rows)
                found[j, place], before = before - now, now
                if now < self.threshold * whole:
                    break
        value = found.mean(0)
        if self.estimate == "mean_minus_std":
            value = value - found.std(0, correction=0)
        return list(value.split([len(alpha) for alpha in self._alphas]))

    def accuracy(self, run: Run, mixture: Mixture, rows: Tensor) -> float:
        """Top-1 (%) of a mixture on these validation images."""
        batch = run.data.batch("valid", rows.to(run.device))
        with torch.no_grad():
            right = run.forward(batch.images, [[w.detach() for w in mixture]])[0].argmax(1) == batch.labels
        return 100 * float(right.double().mean())

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {**super().state_dict(run), "values": self._values}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        super().load_state_dict(run, state)
        self._values = state["values"]
