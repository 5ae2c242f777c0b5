"""Algorithm 1: adaptive pruning. One loop trains everything on one batch and takes units away every few epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from nasbench import BadInput, Plugin, Run
from nasbench.data import Batch
from nasbench.machine import peak_memory
from nasbench_mgdarts.controller import Controller, operation_regulariser, threshold_regulariser
from nasbench_mgdarts.memory import held, saved_tensors
from nasbench_mgdarts.network import Granularity, SearchNet
from nasbench_mgdarts.pruning import prune
from nasbench_mgdarts.regrow import follow_momentum
from nasbench_mgdarts.units import live_thresholds, reset_thresholds, retention, search_size

#: The optimizer's groups, and what the names of their parameters end with.
PARTS = {"alpha": ("alpha",), "beta": ("beta",), "t": ("t_alpha", "t_beta", "t_input"), "t_omega": ("t_omega",)}
#: The parts that are trained while the thresholds rest, and those that rest then.
UNITS, THRESHOLDS = ("weights", "alpha", "beta"), ("t", "t_omega")


class AdaptivePruning(Plugin):
    """Options, training step and loop of Algorithm 1."""

    granularity: list[Granularity] = Field(["op", "filter", "weight"], min_length=1)
    """What is searched: operations, filters, weights, or some of them (Table VIII)."""
    optimization: Literal["joint", "iter_half_epoch", "iter_full_epoch"] = "joint"
    """Units and thresholds together, or in turns by halves of an epoch or by epochs (Table IX)."""
    pruning: Literal["adaptive", "fixed"] = "adaptive"
    """By learned thresholds, or at the fixed `rates` (Fig. 6 and 7)."""
    rates: dict[Granularity, float] = Field({"op": 44, "filter": 0.003})
    """With pruning=fixed, at each event: how many operations, what shares of all filters and weights."""
    retain: dict[Granularity, float] = Field({})
    """Shares of a granularity's units below which it is never pruned (Fig. 1 and 5)."""
    prune_every: int = Field(2, ge=1)
    """Epochs between pruning events (e)."""
    warmup_epochs: int = Field(5, ge=0)
    """Epochs at the beginning of each stage that train the weights alone."""
    max_epochs: int = Field(1000, ge=1)
    """A stage ends after so many epochs even where its size is not reached; the record then says so."""
    threshold_init: Literal["minimum", "zero"] = "minimum"
    """Where thresholds begin: just below the least important unit, as the paper says, or at 0, as its code."""
    threshold_scope: Literal["operation", "per_cell_optype"] = "operation"
    """A threshold for every operation of every edge, or one in a cell for all edges' operations of a type."""
    use_threshold_reg: bool = True
    """Add sum exp(-t) to the regularisers, as the code does; without it little raises a threshold."""
    reg: float = Field(1.0, ge=0)
    """Weight of an operation in the regulariser beside its cost."""
    mu: float = Field(0.0, ge=0)
    """Weight of an operation's cost in the regulariser, per million weights."""
    lambda0: float = Field(1e-5, gt=0)
    """First step of the regularisers' weight lambda."""
    lambda_factor: float = Field(2.0, gt=1)
    """lambda is divided by this, and its step multiplied by the square (c0)."""
    few: int = Field(24, ge=0)
    """An event that takes fewer operations raises lambda."""
    many: int = Field(48, ge=1)
    """An event that takes as many or more lowers lambda."""
    alpha_lr: float = Field(1.0, gt=0)
    """Learning rate of alpha."""
    beta_lr: float = Field(1.0, gt=0)
    """Learning rate of beta."""
    threshold_lr: float = Field(0.1, gt=0)
    """Learning rate of the thresholds of operations and filters."""
    weight_threshold_lr: float = Field(0.001, gt=0)
    """Learning rate of the thresholds of weights."""
    momentum_gamma: float = Field(0.9, ge=0, lt=1)
    """Smoothing of alpha's momentum, by which operations are regrown (gamma of equation (6))."""
    _history: list[dict[str, Any]] = PrivateAttr(default_factory=list)
    _memory: dict[str, int] = PrivateAttr(default_factory=dict)
    _allocated: dict[str, int] = PrivateAttr(default_factory=dict)

    def adapt(
        self,
        run: Run,
        name: str,
        share: float,
        reached: Callable[[], bool],
        after_event: Callable[[], None] = lambda: None,
        last_epoch: bool = False,
    ) -> None:
        """Train and prune `run.net`, inside a stage, until `reached`; with `last_epoch` train one more epoch then.

        `share` is the controller's; `after_event` follows every pruning event. `run.state` counts pruned operations.
        """
        if run.device.type == "cuda":  # from here on the allocator's maximum is this stage's
            run.peak = max(run.peak, peak_memory(run.device))
            torch.cuda.reset_peak_memory_stats(run.device)
        reset_thresholds(run.net, self.threshold_init)
        run.optimizer = self.optimizer(run, run.net)
        controller = run.track("controller", Controller(self.lambda0, self.lambda_factor, self.few, self.many, share))
        run.state.update(pruned=0, reached=False, extra=0)
        steps = run.steps_per_epoch
        for step in run.steps(self.max_epochs * steps):
            epoch = step // steps - self.warmup_epochs  # below 0 the weights are trained alone
            self.step(run, epoch, (step % steps) / steps, controller, name)
            if (step + 1) % steps:
                continue
            due = epoch >= 0 and (epoch + 1) % self.prune_every == 0 and not run.state["reached"]
            if due:
                self.event(run, controller)
            elif run.state["reached"]:
                run.state["extra"] += 1
            self.note(run, name, controller)  # before filters are aligned, as the paper counts them
            if due:
                after_event()
                run.state["reached"] = reached()
            if run.state["reached"] and run.state["extra"] >= int(last_epoch):
                break
        if run.device.type == "cuda":
            self._allocated[name] = peak_memory(run.device)

    def step(self, run: Run, epoch: int, part: float, controller: Controller, name: str) -> None:
        """One training step: the loss's gradient moves whatever is not at rest."""
        net, optimizer = run.net, run.optimizer
        assert optimizer is not None
        net.train()
        optimizer.zero_grad(set_to_none=True)
        batch = run.hook.prepare_batch(run=run, batch=run.hook.next_batch(run=run))
        measured = run.step % run.steps_per_epoch == 0 and epoch in (-self.warmup_epochs, 0)
        if measured:
            with saved_tensors(net) as saved:
                loss, regulariser, total = self.losses(run, net, batch, controller.value)
            self._memory[name] = max(self._memory.get(name, 0), saved.total + held(net, optimizer))
        else:
            loss, regulariser, total = self.losses(run, net, batch, controller.value)
        total.backward()
        follow_momentum(net, self.momentum_gamma)
        moving = self.moving(epoch, part)
        for group in optimizer.param_groups:
            if group["part"] not in moving:
                for p in group["params"]:
                    p.grad = None
            elif group["part"] == "weights" and run.recipe.train.clip is not None:
                nn.utils.clip_grad_norm_(group["params"], run.recipe.train.clip, foreach=True)
        optimizer.step()
        run.state |= {"loss": float(loss.detach()), "regulariser": float(regulariser.detach())}
        run.info = {"loss": loss.detach(), "lambda": controller.value}

    def losses(self, run: Run, net: SearchNet, batch: Batch, weight: float) -> tuple[Tensor, Tensor, Tensor]:
        """The task's loss, R_ops, and what is minimised: the former plus lambda times all regularisers."""
        logits = run.predict(net, batch.images)
        loss = run.hook.compute_loss(run=run, logits=logits[None], batch=batch, archs=[()])[0]
        regulariser = operation_regulariser(net, self.reg, self.mu)
        if not weight:
            return loss, regulariser, loss
        extra = threshold_regulariser(net) if self.use_threshold_reg and self.pruning == "adaptive" else 0.0
        return loss, regulariser, loss + weight * (regulariser + extra)

    def moving(self, epoch: int, part: float) -> tuple[str, ...]:
        """The optimizer's parts that are trained in this epoch (below 0: warm-up), `part` of which is over."""
        if epoch < 0:
            return ("weights",)
        thresholds = THRESHOLDS if self.pruning == "adaptive" else ()
        if self.optimization == "joint" or not thresholds:
            return UNITS + thresholds
        second = part >= 0.5 if self.optimization == "iter_half_epoch" else epoch % 2 == 1
        return thresholds if second else UNITS

    def optimizer(self, run: Run, net: SearchNet) -> torch.optim.Optimizer:
        """SGD with a group for each part."""
        t = run.recipe.train
        rates = {"alpha": self.alpha_lr, "beta": self.beta_lr, "t": self.threshold_lr}
        rates |= {"t_omega": self.weight_threshold_lr}
        part_of = {end: part for part, ends in PARTS.items() for end in ends}
        members: dict[str, list[nn.Parameter]] = {"weights": [], **{part: [] for part in PARTS}}
        for name, parameter in net.named_parameters():
            members[part_of.get(name.rpartition(".")[2], "weights")].append(parameter)
        groups = [
            {
                "params": found,
                "part": part,
                "lr": rates.get(part, t.lr),
                "weight_decay": 0.0 if part in rates else t.weight_decay,
            }
            for part, found in members.items()
        ]
        return torch.optim.SGD(groups, lr=t.lr, momentum=t.momentum, nesterov=t.nesterov, foreach=True)

    def event(self, run: Run, controller: Controller) -> None:
        """Prune, let lambda follow, and forget what the optimizer kept of units that are gone."""
        pruned = prune(run.net, self.rates if self.pruning == "fixed" else None, self.retain)
        run.state["pruned"] += pruned
        controller.after(pruned, run.state["loss"], run.state["regulariser"])
        assert run.optimizer is not None
        left = {id(p) for p in run.net.parameters()}
        for group in run.optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) in left]
        for parameter in [p for p in run.optimizer.state if id(p) not in left]:
            del run.optimizer.state[parameter]
        for s in run.net.structures_():  # so that an alpha stays as it was when its operation was pruned
            momentum = run.optimizer.state.get(s.alpha, {}).get("momentum_buffer")
            if momentum is not None:
                momentum[~s.alive] = 0.0

    def note(self, run: Run, name: str, controller: Controller) -> None:
        """A row of the history: what Fig. 8 shows."""
        means = {part: float(t.detach().mean()) for part, t in live_thresholds(run.net).items() if len(t)}
        for part, mean in (*means.items(), ("loss", run.state["loss"])):
            if not math.isfinite(mean):
                what = "The loss" if part == "loss" else f"The mean threshold of granularity {part}"
                raise BadInput(
                    f"{what} became {mean} in {name}: training diverged. Lower train.lr or the rates of mg-darts."
                )
        self._history.append(
            {
                "stage": name,
                "epoch": run.step // run.steps_per_epoch + 1,
                "size": search_size(run.net),
                "lambda": controller.value,
                "loss": run.state["loss"],
                "thresholds": means,
                "retention": retention(run.net),
            }
        )

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {"history": self._history, "memory": self._memory, "allocated": self._allocated}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        self._history, self._memory = state["history"], state["memory"]
        self._allocated = state.get("allocated", {})
