"""Cream: Peng et al., Cream of the Crop: Distilling Prioritized Paths for One-Shot NAS, NeurIPS 2020."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PrivateAttr
from torch import Tensor
from torch.func import functional_call

from nasbench import Arch, BadInput, Choice, Method, Run, hookimpl
from nasbench.data import Batch
from nasbench.hookspecs import CALLS
from nasbench.oneshot import score_all, score_subset
from nasbench.plugins import answerer

#: A path on the board: its top-1 (%) on the batch that it was last trained on, and its cost.
Path = tuple[float, int]


def distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy of logits [B,K] against a teacher's probabilities [B,K]."""
    return -(teacher * logits.log_softmax(1)).sum(1).mean()


class Cream(Method):
    """A board keeps the best paths met so far; a learned match picks one of them to teach each path that is trained,
    and says how much. In the end the best path of the board is chosen."""

    calls: ClassVar[frozenset[str]] = CALLS["select"]
    keeps_within: ClassVar[bool] = True

    board: int = Field(10, ge=1)
    """Prioritized paths (K)."""
    warmup: float = Field(1 / 6, ge=0, lt=1)
    """Share of the run before the board opens; the paper has 20 of 120 epochs."""
    complexity: Literal["madds", "params", "conv_weights"] = "madds"
    """What a path on the board must not cost more of than the worst, to take its place."""
    gap: float | None = Field(5.0, ge=0)
    """A path whose top-1 is better by more than so many points is taken whatever it costs, as in the official code;
    null leaves that rule out, as in the paper."""
    mixing: Literal["sum", "weighted"] = "sum"
    """The loss, with rho the match and H the cross-entropy: H + rho KD, as in the paper, or, as in the official code,
    (rho KD + (2 - rho) H) / 2."""
    match_images: int = Field(4, ge=1)
    """Images of the batch on which paths are compared."""
    meta_every: int = Field(200, ge=1)
    """Steps between two updates of the match."""
    meta_lr: float = Field(1e-4, gt=0)
    """Their rate."""
    _board: dict[Arch, Path] = PrivateAttr(default_factory=dict)
    _meta: Any = PrivateAttr(None)
    _descent: Any = PrivateAttr(None)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if run.recipe.engine.processes > 1:
            return "cream judges paths on whole batches, of which several processes see a part each; run it in one."
        steps = run.recipe.train.epochs * run.steps_per_epoch
        if steps - 1 < self.warmup * steps:
            return f"cream.warmup = {self.warmup:g} leaves no step to fill the board in a run of {steps}."
        if masking := answerer(run.manager, "prepare_batch"):
            return f"cream distils over all classes, and {type(masking).__name__} changes which take part."
        return None

    @hookimpl(wrapper=True)
    def make_optimizer(self, run: Run) -> Generator[None, Any, Any]:
        with run.seeded("meta"):
            self._meta = run.track("meta", run.to_device(torch.nn.Linear(run.data.classes, 1)))
        self._descent = torch.optim.SGD(self._meta.parameters(), self.meta_lr)
        return (yield)

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]

    # ------------------------------------------------------------------ a step

    @hookimpl(wrapper=True)
    def compute_loss(
        self, run: Run, logits: Tensor, batch: Batch, archs: list[Arch]
    ) -> Generator[None, Tensor, Tensor]:
        losses = yield
        if run.progress < self.warmup:
            return losses
        taught = []
        for arch, own, loss in zip(archs, logits, losses, strict=True):
            teachers = [path for path in self._board if path != arch]
            if teachers:
                if run.step % self.meta_every == 0:
                    self.learn(run, batch, arch, teachers)
                teacher, rho = self.match(run, batch, arch, teachers)
                kd, rho = distillation(own, self.answers(run, batch.images, [teacher])[0]), rho.detach()
                loss = loss + rho * kd if self.mixing == "sum" else (rho * kd + (2 - rho) * loss) / 2
            taught.append(loss)
            self.admit(run, arch, 100 * float((own.argmax(1) == batch.labels).float().mean()))
        return torch.stack(taught)

    def answers(self, run: Run, images: Tensor, archs: list[Arch]) -> Tensor:
        """What subnets hold the classes of these images for: probabilities [n,B,K], without gradients."""
        with torch.no_grad():
            return run.forward(images, archs).softmax(-1)

    def match(self, run: Run, batch: Batch, arch: Arch, teachers: list[Arch]) -> tuple[Arch, Tensor]:
        """The teacher that matches a path best, and rho, how much: the sigmoid of a linear layer of how the two differ,
        averaged over images."""
        own, *theirs = self.answers(run, batch.images[: self.match_images], [arch, *teachers])
        rho = torch.sigmoid(self._meta((own - torch.stack(theirs)).mean(1))).squeeze(1)
        best = int(rho.argmax())
        return teachers[best], rho[best]

    def learn(self, run: Run, batch: Batch, arch: Arch, teachers: list[Arch]) -> None:
        """One step of the match down the validation loss that the path has after one step of distillation.

        With W' = W - eta rho g, g the gradient of the distillation, that loss has the slope -eta <g', g> in rho.
        """
        teacher, rho = self.match(run, batch, arch, teachers)
        eta = run.hook.learning_rates(run=run, archs=[arch])[0]
        kd = distillation(run.forward(batch.images, [arch])[0], self.answers(run, batch.images, [teacher])[0])
        named = dict(run.net.named_parameters())
        grads = torch.autograd.grad(kd, list(named.values()), allow_unused=True)
        g = {name: grad for name, grad in zip(named, grads, strict=True) if grad is not None}
        moved = {name: (named[name] - eta * rho * grad).detach().requires_grad_() for name, grad in g.items()}
        rows = torch.randperm(len(run.data.valid), generator=run.generator("meta"))[: run.recipe.train.batch_size]
        valid = run.data.batch("valid", rows.to(run.device))
        after = run.predict(lambda images: functional_call(run.net, moved, (images, [arch])), valid.images)[0]
        slopes = torch.autograd.grad(F.cross_entropy(after, valid.labels), list(moved.values()), allow_unused=True)
        slope = -eta * sum((s * grad).sum() for s, grad in zip(slopes, g.values(), strict=True) if s is not None)
        self._descent.zero_grad()
        (rho * slope).backward()
        self._descent.step()

    def admit(self, run: Run, arch: Arch, top1: float) -> None:
        """Put a path on the board if there is room, or if it beats the worst there; one on it is judged anew."""
        path = (top1, run.space.cost(arch)[self.complexity])
        if arch not in self._board and len(self._board) == self.board:
            worst = min(self._board, key=lambda a: self._board[a][0])
            accuracy, cost = self._board[worst]
            cheaper = top1 > accuracy and path[1] < cost
            if not cheaper and (self.gap is None or top1 <= accuracy + self.gap):
                return
            del self._board[worst]
        self._board[arch] = path

    # ------------------------------------------------------------------ the end

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        score_subset(run)  # to rank the supernet; the choice is the board's
        fitting = [arch for arch in self._board if run.fits(arch)]
        if not fitting:
            raise BadInput(f"None of cream's {len(self._board)} prioritized paths keeps to select.within; widen it.")
        found = score_all(run, fitting, "board")
        best = max(found, key=found.__getitem__)
        return [Choice(best, selected_on=f"{run.scored_by}, best of {len(found)} prioritized paths")]

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {"board": self._board}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        self._board = state["board"]
