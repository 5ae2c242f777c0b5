"""The optimizer of a supernet as the recipe's `train` group says, and the warm-up of its rate."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from nasbench import hookimpl
from nasbench.flat import FlatSGD
from nasbench.plugins import Plugin, answerer
from nasbench.static import recorded

if TYPE_CHECKING:
    from nasbench.running import Run
    from nasbench.space import Arch


class WarmUp(Plugin):
    """Outermost around `learning_rates`, a part of every run with `train.warmup_epochs`."""

    priority: ClassVar[int] = 1000

    @hookimpl(wrapper=True)
    def learning_rates(self, run: Run, archs: list[Arch]) -> Generator[None, list[float], list[float]]:
        rates = yield
        rising = run.recipe.train.warmup_epochs * run.steps_per_epoch
        return rates if run.step >= rising else [run.recipe.train.lr * (run.step + 1) / math.ceil(rising)] * len(rates)


def make(run: Run) -> torch.optim.Optimizer:
    """The optimizer of `run.net`."""
    assert run.net is not None
    t = run.recipe.train
    if t.optimizer == "adamw":
        return torch.optim.AdamW(run.net.parameters(), t.lr, weight_decay=t.weight_decay, foreach=True)
    settings: dict[str, Any] = {
        "lr": t.lr,
        "momentum": t.momentum,
        "nesterov": t.nesterov,
        "weight_decay": t.weight_decay,
        "foreach": True,
    }
    alike = len({(p.dtype, p.device) for p in run.net.parameters()}) == 1  # so that they can lie in one tensor
    if recorded(run) and alike:
        run.static = None  # it knows the weights by where they lay
        return FlatSGD(run.net, **settings)
    return torch.optim.SGD(run.net.parameters(), **settings)


def step(optimizer: torch.optim.Optimizer, clip: float | None) -> None:
    """A step with gradients whose norm over all parameters is at most `clip`."""
    if isinstance(optimizer, FlatSGD):
        optimizer.step(clip=clip)
        return
    if clip is not None:
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, clip, foreach=True)
    optimizer.step()


def loss_weights(run: Run, rates: list[float], inside: bool) -> list[float]:
    """What each subnet's loss counts: 1, or with rates inside its rate, which AdamW needs relative to their mean."""
    if not inside:
        return [1.0] * len(rates)
    scale = math.fsum(rates) / len(rates) if run.recipe.train.optimizer == "adamw" else 1.0
    return [rate / scale for rate in rates]


def refuse(run: Run) -> str | None:
    """One sentence if a setting would be ignored, because a plugin makes the optimizer or the loss itself."""
    for setting, usual, hook in (("optimizer", "sgd", "make_optimizer"), ("label_smoothing", 0.0, "compute_loss")):
        value = getattr(run.recipe.train, setting)
        if value != usual and answerer(run.manager, hook) is not None:
            return f"{run.recipe.method} has a {hook} of its own, which train.{setting} = {value} does not reach."
    return None
