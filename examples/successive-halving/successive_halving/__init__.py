"""Successive halving: Jamieson and Talwalkar, Non-stochastic Best Arm Identification, AISTATS 2016."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field

from nasbench import Arch, Choice, Method, Run, hookimpl
from nasbench.networks import top1


class SuccessiveHalving(Method):
    """Trains many networks alone for a little while, goes on with the better ones, and so on to the best.

    After the last round the best have been trained for the recipe's `train.epochs`, those of the round before for a
    share 1/eta of that, and so on.
    """

    # It answers `search`, so what its own loops still call is named: modifiers of these compose with it.
    calls: ClassVar[frozenset[str]] = frozenset({"make_optimizer", "next_batch"})

    candidates: int = Field(8, ge=2)
    """Networks in the first round; fewer where the space is smaller."""
    eta: int = Field(2, ge=2)
    """One of so many goes on to the next round."""

    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        archs, epochs = self.draw(run), 0
        nets = {}
        for arch in archs:
            with run.seeded(f"init {run.space.number(arch)}"):
                nets[arch] = run.to_device(run.space.build(arch))
        for i, until in enumerate(self.budgets(run, len(archs))):
            accuracy = {}
            for arch in archs:
                # A stage that is finished is replayed, and leaves its weights in the network that is there.
                run.net = nets[arch]
                name = f"round{i}-{run.space.number(arch)}"
                accuracy[arch] = run.stage(name, partial(self.train_alone, run, until - epochs))
            archs = sorted(archs, key=lambda arch: -accuracy[arch])[: max(1, len(archs) // self.eta)]
            epochs = until
        return [Choice(archs[0], selected_on="validation top-1 of networks trained alone")]

    def draw(self, run: Run) -> list[Arch]:
        """Different architectures, drawn once a run."""
        rng, found = run.fixed_rng("candidates"), dict[Arch, None]()
        while len(found) < min(self.candidates, run.space.size):
            found[run.space.sample(rng)] = None
        return list(found)

    def budgets(self, run: Run, count: int) -> list[int]:
        """For each round, for how many epochs its networks have been trained when it ends."""
        rounds = 1
        while count // self.eta > 1:
            count, rounds = count // self.eta, rounds + 1
        return [max(1, run.recipe.train.epochs // self.eta**left) for left in reversed(range(rounds))]

    def train_alone(self, run: Run, epochs: int) -> float:
        """Train `run.net` on, and say its validation top-1 (%)."""
        run.net.train()
        run.optimizer = run.hook.make_optimizer(run=run)
        for _ in run.steps(epochs * run.steps_per_epoch):
            batch = run.hook.next_batch(run=run)
            loss = F.cross_entropy(run.predict(run.net, batch.images), batch.labels)
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            run.info = {"loss": loss.detach()}
        return top1(run, run.net, "valid")
