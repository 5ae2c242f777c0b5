"""Training the chosen architecture from scratch: section C.5 and Table H of the supplement of Subnet-Aware Dynamic
Supernet Training for NAS, CVPR 2025; hyper-parameters of NAS-Bench-201."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from nasbench import Choice, Modifier, Run, hookimpl
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
    """L2 decay; SGD's momentum is 0.9, Nesterov's."""
    scheduler: Literal["cosine", "calr"] = "cosine"
    """How the rate falls to 0: as usual, or as calr would have it for this subnet, which is worse (Table H)."""

    @hookimpl(wrapper=True)
    def search(self, run: Run) -> Generator[None, list[Choice], list[Choice]]:
        choices = yield
        return [*choices, *(self.retrain(run, i, choice) for i, choice in enumerate(choices))]

    def retrain(self, run: Run, index: int, choice: Choice) -> Choice:
        """The same choice with a network trained from scratch, as a resumable stage."""

        def loop() -> None:
            steps = -(-len(run.data.train) // self.batch_size)
            run.optimizer = torch.optim.SGD(
                run.net.train().parameters(), self.lr, 0.9, nesterov=True, weight_decay=self.weight_decay
            )
            for step in run.steps(self.epochs * steps):
                order = torch.randperm(len(run.data.train), generator=run.generator("order", step // steps))
                rows = order[step % steps * self.batch_size :][: self.batch_size].to(run.device)
                batch = run.data.training_batch(rows, run.generator("augment"))
                run.optimizer.param_groups[0]["lr"] = rate = self.rate(run, choice)
                run.optimizer.zero_grad()
                loss = F.cross_entropy(run.predict(run.net, batch.images), batch.labels)
                loss.backward()
                run.optimizer.step()
                run.info = {"loss": loss.detach(), "lr": rate}

        with run.seeded(f"retrain-{index}"):
            supernet, run.net = run.net, run.to_device(run.space.build(choice.arch))
        run.stage(f"retrain-{index}", loop)
        network, run.net = run.net, supernet
        return Choice(choice.arch, choice.scenario, "retrain", choice.selected_on, network)

    def rate(self, run: Run, choice: Choice) -> float:
        """The learning rate of the current step."""
        if self.scheduler == "cosine":
            return self.lr * (1 + math.cos(math.pi * run.progress)) / 2
        calr = run.plugins.get("calr", CaLR())
        assert isinstance(calr, CaLR)
        return float(self.lr * (1 - run.progress) ** calr.gamma(run, choice.arch))
