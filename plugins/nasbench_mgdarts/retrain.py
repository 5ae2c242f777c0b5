"""The found network trained from scratch with its masks fixed: section 4.5 of the search, the recipe of DARTS."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator

from nasbench import Plugin, Run
from nasbench.budget import Budget
from nasbench_mgdarts.network import FinalNet


class Retrained(Plugin):
    """The size that is searched for; options and loop of the final training."""

    target: str = "params=2.2M"
    """The search ends when what it found has at most so many non-zero parameters: params=N, or keep=R of those that the
    whole super-net would have."""

    retrain_epochs: int = Field(600, ge=0)
    """Epochs of the final training; 0 leaves it out."""
    retrain_batch_size: int = Field(96, ge=2)
    """Images a step of the final training."""
    retrain_lr: float = Field(0.025, gt=0)
    """Initial learning rate of SGD with momentum 0.9; it falls to 0 along a cosine."""
    retrain_weight_decay: float = Field(3e-4, ge=0)
    """L2 decay of the final training."""
    retrain_clip: float = Field(5.0, gt=0)
    """Largest norm of the gradient."""
    retrain_drop_path: float = Field(0.2, ge=0, lt=1)
    """Share of images that lose an operation; it rises to this linearly over the epochs."""
    retrain_auxiliary: float = Field(0.4, ge=0)
    """Weight of the auxiliary head's loss behind cell floor(2L/3); 0 leaves the head out."""
    retrain_autoaugment: bool = False
    """Whether data.augment's autoaugment is used here too; the paper's code has it in the search alone."""

    @field_validator("target")
    @classmethod
    def _readable(cls, target: str) -> str:
        limit = Budget.parse(target)
        if limit.name == "madds":
            raise ValueError("it limits parameters; write params=2.2M or keep=0.2")
        return str(limit)

    def most_parameters(self, whole: int) -> float:
        """The target in parameters, given those of the whole super-net as a final network."""
        limit = Budget.parse(self.target)
        return limit.value if limit.name == "params" else limit.value * whole

    def retrain(self, run: Run, network: FinalNet) -> FinalNet:
        """Train a network as a resumable stage, from the weights it has."""
        steps = -(-len(run.data.train) // self.retrain_batch_size)
        kinds = [k for k in run.recipe.data.augment if k != "autoaugment" or self.retrain_autoaugment]

        def loop() -> None:
            net = run.net.train()
            run.optimizer = torch.optim.SGD(
                net.parameters(), self.retrain_lr, 0.9, weight_decay=self.retrain_weight_decay, foreach=True
            )
            for step in run.steps(self.retrain_epochs * steps):
                order = torch.randperm(len(run.data.train), generator=run.generator("order", step // steps))
                rows = order[step % steps * self.retrain_batch_size :][: self.retrain_batch_size].to(run.device)
                batch = run.data.training_batch(rows, run.generator("augment"), kinds=kinds)
                epoch = step // steps
                rate = self.retrain_lr * (1 + math.cos(math.pi * epoch / self.retrain_epochs)) / 2
                run.optimizer.param_groups[0]["lr"] = rate
                net.drop_path = self.retrain_drop_path * epoch / self.retrain_epochs
                run.optimizer.zero_grad()
                logits, auxiliary = net.with_auxiliary(batch.images)
                loss = F.cross_entropy(logits, batch.labels)
                if auxiliary is not None:
                    loss = loss + self.retrain_auxiliary * F.cross_entropy(auxiliary, batch.labels)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), self.retrain_clip, foreach=True)
                run.optimizer.step()
                run.info = {"loss": loss.detach(), "lr": rate}

        searched, run.net = run.net, run.to_device(network)
        run.stage("retrain", loop)
        network, run.net = run.net, searched
        return network.eval()
