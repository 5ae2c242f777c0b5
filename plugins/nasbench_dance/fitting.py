"""A stage of supervised training: AdamW under OneCycle, early stopping on validation images, the best epoch kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nasbench import Run
from nasbench.data import Batch

Groups = list[dict[str, Any]]


class Best:
    """The weights of the best epoch so far, and for how many epochs there was none better."""

    def __init__(self) -> None:
        self.top1, self.waited = -1.0, 0
        self.weights: dict[str, Tensor] = {}

    def see(self, top1: float, net: nn.Module) -> None:
        """Compare an epoch's validation top-1 (%)."""
        self.waited += 1
        if top1 > self.top1:
            self.top1, self.waited = top1, 0
            self.weights = {name: value.detach().clone() for name, value in net.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def fit(
    run: Run,
    net: nn.Module,
    groups: Groups,
    epochs: int,
    loss: Callable[[Batch], Tensor],
    top1: Callable[[], float],
    *,
    patience: int,
    clip_scope: str = "global",
    cycle_momentum: bool = True,
) -> float:
    """Train `net` (run.net) inside a stage, leave its best epoch in it, and say that epoch's validation top-1 (%).

    `groups` are the optimizer's, each with its peak rate `lr`; `loss` is asked for every training batch, `top1` after
    every epoch. The gradient's norm is clipped to `train.clip` over all parameters, or over each tensor alone.
    """
    steps = run.steps_per_epoch
    run.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        run.optimizer,
        [group["lr"] for group in groups],
        total_steps=epochs * steps,
        pct_start=0.3,
        cycle_momentum=cycle_momentum,
    )
    run.track("schedule", schedule)
    best: Best = run.track("best", Best())
    parameters = [p for group in groups for p in group["params"]]
    for step in run.steps(epochs * steps):
        batch = run.hook.prepare_batch(run=run, batch=run.hook.next_batch(run=run))
        net.train()
        run.optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        if run.recipe.train.clip is not None:
            for together in [[p] for p in parameters] if clip_scope == "tensor" else [parameters]:
                nn.utils.clip_grad_norm_(together, run.recipe.train.clip)
        run.info = {"loss": value.detach(), "lr": run.optimizer.param_groups[-1]["lr"]}
        run.optimizer.step()
        schedule.step()
        if (step + 1) % steps == 0:
            net.eval()
            best.see(top1(), net)
            if best.waited >= patience:
                break
    net.load_state_dict(best.weights)
    net.eval()
    return best.top1
