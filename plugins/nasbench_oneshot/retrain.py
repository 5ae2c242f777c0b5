"""Training the chosen architecture from scratch: section C.5 and Table H of the supplement of Subnet-Aware Dynamic
Supernet Training for NAS, CVPR 2025; hyper-parameters of NAS-Bench-201, and what DARTS, ICLR 2019, adds to them."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field

from nasbench import Choice, Modifier, Run, hookimpl
from nasbench.data import Batch
from nasbench.plugins import LATER
from nasbench.recipe import Augmentation
from nasbench_oneshot.calr import CaLR


class Retrain(Modifier):
    """Each choice of the search is trained alone, and its network measured beside it as the phase `retrain`."""

    epochs: int = Field(200, ge=1)
    """Passes over the training images."""
    batch_size: int = Field(256, ge=1)
    """Images a step."""
    lr: float = Field(0.1, gt=0)
    """Initial learning rate."""
    weight_decay: float = Field(5e-4, ge=0)
    """L2 decay; SGD's momentum is 0.9."""
    nesterov: bool = Field(True, json_schema_extra=LATER)
    """Nesterov momentum."""
    clip: float | None = Field(None, gt=0, json_schema_extra=LATER)
    """Clip the gradient's global norm; null does not."""
    augment: list[Augmentation] | None = Field(None, json_schema_extra=LATER)
    """Augmentation; null augments as for the search."""
    drop_path: float = Field(0.0, ge=0, lt=1, json_schema_extra=LATER)
    """The network's drop path of the last epoch and one more, on a line from 0; for networks that have one."""
    auxiliary: float = Field(0.0, ge=0, json_schema_extra=LATER)
    """What the loss of the network's auxiliary head weighs; for spaces whose option `auxiliary` is on."""
    scheduler: Literal["cosine", "calr"] = "cosine"
    """How the rate falls to 0: as usual, or as calr would have it for this subnet, which is worse (Table H)."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if self.drop_path and not hasattr(run.space, "drop_path"):
            return f"retrain.drop_path = {self.drop_path}: networks of {run.space.name} have no drop path; set it to 0."
        if self.auxiliary and not getattr(run.space, "auxiliary", False):
            instead = f", or {run.space.name}.auxiliary=true" if hasattr(run.space, "auxiliary") else ""
            return (
                f"retrain.auxiliary = {self.auxiliary}: networks of {run.space.name} have no auxiliary head here; "
                f"set it to 0{instead}."
            )
        if self.auxiliary:
            with torch.device("meta"):  # whether the head fits the images
                run.space.build(run.space.sample(run.fixed_rng("refuse")))
        return None

    @hookimpl(wrapper=True)
    def search(self, run: Run) -> Generator[None, list[Choice], list[Choice]]:
        choices = yield
        return [*choices, *(self.retrain(run, i, choice) for i, choice in enumerate(choices))]

    def retrain(self, run: Run, index: int, choice: Choice) -> Choice:
        """The same choice with a network trained from scratch, as a resumable stage."""

        def loop() -> None:
            steps = -(-len(run.data.train) // self.batch_size)
            run.optimizer = torch.optim.SGD(
                run.net.train().parameters(), self.lr, 0.9, nesterov=self.nesterov, weight_decay=self.weight_decay
            )
            for step in run.steps(self.epochs * steps):
                order = torch.randperm(len(run.data.train), generator=run.generator("order", step // steps))
                rows = order[step % steps * self.batch_size :][: self.batch_size].to(run.device)
                batch = run.data.training_batch(rows, run.generator("augment"), "train", self.augment)
                run.optimizer.param_groups[0]["lr"] = rate = self.rate(run, choice)
                if self.drop_path:
                    run.net.drop_path = self.drop_path * (step // steps) / self.epochs
                run.optimizer.zero_grad()
                loss = self.loss(run, batch)
                loss.backward()
                if self.clip is not None:
                    torch.nn.utils.clip_grad_norm_(run.net.parameters(), self.clip, foreach=True)
                run.optimizer.step()
                run.info = {"loss": loss.detach(), "lr": rate}

        with run.seeded(f"retrain-{index}"):
            supernet, run.net = run.net, run.to_device(run.space.build(choice.arch))
        run.stage(f"retrain-{index}", loop)
        network, run.net = run.net, supernet
        return Choice(choice.arch, choice.scenario, "retrain", choice.selected_on, network)

    def loss(self, run: Run, batch: Batch) -> torch.Tensor:
        """Cross-entropy, of the auxiliary head as well where it counts; a scalar."""
        if not self.auxiliary:
            return F.cross_entropy(run.predict(run.net, batch.images), batch.labels)
        both = cast(torch.nn.Module, lambda images: torch.stack(run.net.with_auxiliary(images)))
        logits, others = run.predict(both, batch.images)
        return F.cross_entropy(logits, batch.labels) + self.auxiliary * F.cross_entropy(others, batch.labels)

    def rate(self, run: Run, choice: Choice) -> float:
        """The learning rate of the current step."""
        if self.scheduler == "cosine":
            return self.lr * (1 + math.cos(math.pi * run.progress)) / 2
        calr = run.plugins.get("calr", CaLR())
        assert isinstance(calr, CaLR)
        return float(self.lr * (1 - run.progress) ** calr.gamma(run, choice.arch))
