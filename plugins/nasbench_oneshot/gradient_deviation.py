"""The standard deviation of the supernet's gradients: Fig. 2(c) of Subnet-Aware Dynamic Supernet Training for NAS,
CVPR 2025, and Fig. B of its supplement."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import PrivateAttr

from nasbench import Arch, Choice, Metric, Modifier, Run, hookimpl

#: Of the gradients seen: how many, their mean, and their summed squared distance from it.
Moments = tuple[int, torch.Tensor, torch.Tensor]


class GradientDeviation(Modifier):
    """Reports how much the gradient of the supernet's first weight varies over the steps of an epoch.

    The deviation is taken coordinate by coordinate, among the gradients that enter one momentum: within clusters,
    where there are any. Nothing is changed.
    """

    _moments: dict[int, Moments] = PrivateAttr(default_factory=dict)
    """Of the running epoch, by cluster."""
    _epochs: dict[int, float] = PrivateAttr(default_factory=dict)

    @hookimpl(wrapper=True)
    def update(self, run: Run, archs: list[Arch]) -> Any:
        first, cluster = next(run.net.parameters()), run.state.get("cluster", 0)
        gradient = (torch.zeros_like(first) if first.grad is None else first.grad).detach().double()
        zero = torch.zeros_like(gradient)
        count, mean, squares = self._moments.get(cluster, (0, zero, zero))
        count, off = count + 1, gradient - mean  # Welford
        mean = mean + off / count
        self._moments[cluster] = (count, mean, squares + off * (gradient - mean))
        return (yield)

    @hookimpl
    def after_epoch(self, run: Run) -> None:
        free = sum(count - 1 for count, _, _ in self._moments.values())
        if free > 0:  # of one step a cluster nothing can be said
            variance = torch.stack([squares for _, _, squares in self._moments.values()]).sum(0) / free
            self._epochs[run.epoch + 1] = float(variance.sqrt().mean())
        self._moments = {}

    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        mine = {"gradient_deviation": self._epochs}
        for name, part in run.parts.items():
            mine |= {
                f"gradient_deviation_{name}": p._epochs for p in part.plugins.values() if isinstance(p, type(self))
            }
        return [
            Metric(
                name=name,
                value=list(epochs.values())[-1],
                definition="standard deviation of the first weight's gradient over the steps of the last epoch, "
                "pooled over clusters, averaged over coordinates",
                dataset=run.data.name,
                split="train",
                curve={"epoch": list(epochs), "value": list(epochs.values())},
            )
            for name, epochs in mine.items()
            if epochs
        ]

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {"moments": self._moments, "epochs": self._epochs}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        self._moments, self._epochs = state["moments"], state["epochs"]
