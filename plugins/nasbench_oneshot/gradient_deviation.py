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

    The deviation is taken coordinate by coordinate among the gradients that enter one momentum, which are those of a
    cluster where there are clusters, and averaged. Nothing is changed.
    """

    _moments: dict[int, Moments] = PrivateAttr(default_factory=dict)
    """Of the running epoch, by cluster."""
    _epochs: list[float] = PrivateAttr(default_factory=list)

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
        if self._moments:
            total = sum(count for count, _, _ in self._moments.values())
            weighted = (count * float((squares / count).sqrt().mean()) for count, _, squares in self._moments.values())
            self._epochs.append(sum(weighted) / total)
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
                value=epochs[-1],
                definition="standard deviation of the first weight's gradient over the steps of the last epoch, "
                "within a cluster, averaged over coordinates and steps",
                dataset=run.data.name,
                split="train",
                curve={"epoch": list(range(1, len(epochs) + 1)), "value": list(epochs)},
            )
            for name, epochs in mine.items()
            if epochs
        ]

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {"moments": self._moments, "epochs": self._epochs}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        self._moments, self._epochs = state["moments"], state["epochs"]
