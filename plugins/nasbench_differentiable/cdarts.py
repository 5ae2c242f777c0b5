"""CDARTS: Yu, Peng, Huang, Fu, Du, Wang and Ling, Cyclic Differentiable Architecture Search, TPAMI 2023."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from nasbench import Arch, Mixture, Run, SearchSpace, hookimpl
from nasbench.data import Batch
from nasbench_differentiable.darts_v1 import DARTSV1
from nasbench_differentiable.relaxation import validation_batch

#: Operations without weights, which a search network likes while it is little trained.
WEIGHTLESS = frozenset({"skip", "skip_connect", "avg_pool_3x3", "max_pool_3x3"})


class CDARTS(DARTSV1):
    """The architecture that alpha stands for is trained beside the search network, as an evaluation network. Then both
    meet: alpha follows the validation loss and what lets the two networks see the same in an image, until the next
    architecture is read off alpha and the cycle begins anew."""

    pretrain: int = Field(2, ge=0)
    """Epochs for which only the search network's weights are trained."""
    cycle: int = Field(2, ge=1)
    """Epochs for which an evaluation network is kept."""
    warmup: int = Field(1, ge=0)
    """How many of them train its weights while alpha rests."""
    cells: int | None = Field(None, ge=1)
    """Cells of the evaluation network, in the space's own count; null takes as many as the search network has."""
    evaluation_lr: float = Field(0.1, gt=0)
    """SGD's rate for the evaluation network's weights, which falls as that of the search network does."""
    distillation: float = Field(1.0, ge=0)
    """What the difference of the two networks weighs in their loss (lambda)."""
    temperature: float = Field(2.0, gt=0)
    """T, by which logits are divided before they are compared."""
    hold: float = Field(5.0, ge=0)
    """What |alpha| of operations without weights weighs in the loss at first (lambda')."""
    hold_share: float = Field(0.5, gt=0, le=1)
    """Share of the epochs with an evaluation network in which that falls to 0, on a line."""
    arch_lr: float = Field(6e-4, gt=0)
    """Adam's rate for the architecture parameters."""
    _evaluation: Any = PrivateAttr(None)
    _descent: Any = PrivateAttr(None)
    _heads: list[nn.Linear] = PrivateAttr(default_factory=list)
    _arch: Arch = PrivateAttr(())

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        epochs, space = run.recipe.train.epochs, run.space
        if self.warmup >= self.cycle or self.pretrain + self.warmup >= epochs:
            return (
                f"cdarts lets alpha rest in the first {self.pretrain} epochs (pretrain) and the first {self.warmup} "
                f"(warmup) of every {self.cycle} after them (cycle), which leaves none of {epochs}."
            )
        if self.cells and "cells" not in type(space).model_fields:
            return f"cdarts.cells = {self.cells} is for a space made of cells; leave it out on {space.name}."
        if self.deep(run).choices != space.choices:
            return f"cdarts.cells = {self.cells} changes the decisions of this variant of {space.name}; leave it out."
        return super().refuse(run)

    # ------------------------------------------------------------------ the second network

    def deep(self, run: Run) -> SearchSpace:
        """The space at the depth of the evaluation network."""
        deep: SearchSpace = run.space.with_(cells=self.cells) if self.cells else run.space
        return deep

    @hookimpl(wrapper=True)
    def make_optimizer(self, run: Run) -> Generator[None, Any, Any]:
        """Both networks have what they see compared by the same heads, fixed at random: trained ones would agree on
        nothing."""
        t = run.recipe.train
        with run.seeded("evaluation"):
            net = run.to_device(self.deep(run).supernet())
            images = next(net.parameters()).new_zeros(2, *run.space.image)
            with torch.no_grad():
                widths = [x.shape[1] for x in self.features(run, net, run.space.from_number(0), images)[0]]
            self._heads = [nn.Linear(width, run.data.classes).to(images) for width in widths]
        self._evaluation = run.track("evaluation", net)
        sgd = torch.optim.SGD(net.parameters(), self.evaluation_lr, t.momentum, 0, t.weight_decay, t.nesterov)
        self._descent = run.track("evaluation weights", sgd)
        return (yield from super().make_optimizer(run))

    def features(self, run: Run, net: Any, arch: Arch | Mixture, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """What leaves each of a network's reductions, averaged over the image [B,C], and its logits [B,K]."""
        seen: list[Tensor] = []
        places = getattr(net, "reductions", ())
        hooks = [place.register_forward_hook(lambda *call: seen.append(call[2])) for place in places]
        logits = run.predict(net, images, [arch])[0]
        for hook in hooks:
            hook.remove()
        return [x.relu().mean((2, 3)) for x in seen], logits

    def answers(self, run: Run, net: Any, arch: Arch | Mixture, images: Tensor) -> list[Tensor]:
        """The logits [B,K] of the heads behind a network's reductions, and last its own."""
        seen, logits = self.features(run, net, arch, images)
        return [*(head(x.to(head.weight)) for head, x in zip(self._heads, seen, strict=True)), logits]

    # ------------------------------------------------------------------ a cycle

    def architecture_gradient(self, run: Run, batch: Batch) -> list[Tensor] | None:
        """Trains the evaluation network on the way."""
        epoch = run.epoch - self.pretrain
        if epoch < 0:
            return None
        if epoch % self.cycle == 0 and run.step % run.steps_per_epoch == 0:
            self._arch = run.space.discretize(self.strength(run))
            self._descent.state.clear()  # another network, though its operations keep their weights
        valid, meet = validation_batch(run), epoch % self.cycle >= self.warmup
        theirs = self.answers(run, self._evaluation, self._arch, valid.images)
        logits: list[Tensor] = [theirs[-1]]
        value = theirs[-1].new_zeros(())
        if meet:
            own = self.answers(run, run.net, self.mixture(run, "valid"), valid.images)
            value = self.distillation * introspection(own, theirs, self.temperature) + self.held(run)
            logits.append(own[-1])
        archs = [self._arch] * len(logits)
        value = value + run.hook.compute_loss(run=run, logits=torch.stack(logits), batch=valid, archs=archs).sum()
        weights = list(self._evaluation.parameters())
        slopes = torch.autograd.grad(value, [*weights, *self._alphas], allow_unused=True)
        self.descend(run, weights, slopes[: len(weights)])
        pairs = zip(self._alphas, slopes[len(weights) :], strict=True)
        return [torch.zeros_like(alpha) if slope is None else slope for alpha, slope in pairs] if meet else None

    def descend(self, run: Run, weights: list[nn.Parameter], slopes: tuple[Tensor | None, ...]) -> None:
        """A step of the evaluation network's weights; those of operations that it does not have rest."""
        t = run.recipe.train
        for weight, slope in zip(weights, slopes, strict=True):
            weight.grad = slope
        if t.clip is not None:
            nn.utils.clip_grad_norm_(weights, t.clip)
        falling = run.hook.learning_rates(run=run, archs=[self._arch])[0] / t.lr
        for group in self._descent.param_groups:
            group["lr"] = self.evaluation_lr * falling
        self._descent.step()

    def held(self, run: Run) -> Tensor:
        """The part of the loss that holds operations without weights down, a scalar."""
        epochs = self.hold_share * (run.recipe.train.epochs - self.pretrain)
        weight = self.hold * max(0.0, 1 - (run.epoch - self.pretrain) / epochs)
        return (
            weight
            * torch.stack(
                [
                    alpha[[i for i, option in enumerate(options) if option in WEIGHTLESS]].abs().sum()
                    for alpha, options in zip(self._alphas, self.decisions(run).values(), strict=True)
                ]
            ).sum()
        )

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {**super().state_dict(run), "arch": list(self._arch)}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        super().load_state_dict(run, state)
        self._arch = tuple(state["arch"])


def introspection(own: list[Tensor], theirs: list[Tensor], temperature: float) -> Tensor:
    """T^2 times the divergence of the search network's answers from the evaluation network's, softened by T: averaged
    over images and heads, a scalar with gradients to both."""
    a, b = ((torch.cat(logits) / temperature).log_softmax(1) for logits in (own, theirs))
    return temperature**2 * F.kl_div(a, b, reduction="batchmean", log_target=True)
