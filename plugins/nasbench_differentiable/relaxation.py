"""What the gradient-based methods share: architecture parameters, their turn with the weights, what becomes of them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from nasbench import Arch, Choice, Mixture, Modifier, Plugin, Run, hookimpl
from nasbench.data import Batch, shuffled


class Annealed(Plugin):
    """The weights' learning rate falls to `lr_min` instead of 0."""

    lr_min: float = Field(0.0, ge=0)
    """Where the learning rate of the weights ends; a schedule to 0 is lifted accordingly."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if self.lr_min > run.recipe.train.lr:
            return f"lr_min = {self.lr_min} is above train.lr = {run.recipe.train.lr}, where the learning rate begins."
        return None

    @hookimpl(wrapper=True)
    def learning_rates(self, run: Run, archs: list[Arch]) -> Generator[None, list[float], list[float]]:
        rates = yield
        return [self.lr_min + (1 - self.lr_min / run.recipe.train.lr) * rate for rate in rates]


class Mixed(Annealed):
    """Architecture parameters alpha, a vector for each decision of `space.relaxed`, that weigh the operations of the
    search network. A method says what `mixture` alpha makes, and how alpha is trained."""

    mixes: ClassVar[bool] = True
    """Whether the weights too are trained on mixtures, so that what is about single subnets has no meaning."""

    _alphas: list[Tensor] = PrivateAttr(default_factory=list)
    _optimizer: Any = PrivateAttr(None)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if not self.decisions(run):
            return f"{run.recipe.method} weighs options against each other; {run.recipe.space} does not mix them."
        for hook in ("sample_archs", "learning_rates") if self.mixes else ():
            for impl in getattr(run.hook, hook).get_hookimpls():
                if isinstance(impl.plugin, Modifier):
                    return f"{impl.plugin_name} is about single subnets, and {run.recipe.method} trains mixtures."
        return super().refuse(run)

    # ------------------------------------------------------------------ what a method may change

    def network(self, run: Run) -> torch.nn.Module:
        """The search network."""
        return run.space.supernet()

    def decisions(self, run: Run) -> dict[str, tuple[str, ...]]:
        """The decisions that a mixture weighs, with their options; none where the space does not mix them."""
        return run.space.relaxed

    def shapes(self, run: Run) -> list[int]:
        """The length of each vector of architecture parameters."""
        return [len(options) for options in self.decisions(run).values()]

    def mixture(self, run: Run, purpose: str) -> Mixture:
        """What weighs the operations, with gradients to alpha; `purpose` names random streams: train or valid."""
        return [alpha.softmax(0) for alpha in self._alphas]

    def start(self, n: int, rng: torch.Generator) -> Tensor:
        """A vector of architecture parameters at the start."""
        return 1e-3 * torch.randn(n, generator=rng)

    # ------------------------------------------------------------------ training

    @hookimpl
    def build_supernet(self, run: Run) -> torch.nn.Module:
        with run.seeded("init"):
            net = run.to_device(self.network(run))
        rng, like = run.generator("alpha", step=0), next(net.parameters())
        self._alphas = [self.start(n, rng).to(like.device, like.dtype).requires_grad_() for n in self.shapes(run)]
        return net

    @hookimpl
    def sample_archs(self, run: Run) -> list[Mixture] | list[Arch]:
        return [[weights.detach() for weights in self.mixture(run, "train")]]

    # ------------------------------------------------------------------ what becomes of alpha

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        return [Choice(run.space.discretize(self.strength(run)), selected_on="architecture parameters")]

    def strength(self, run: Run) -> Mixture:
        """What the architecture is read off."""
        return [alpha.detach().softmax(0) for alpha in self._alphas]

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {"alphas": self._alphas}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        for alpha, saved in zip(self._alphas, state["alphas"], strict=True):
            alpha.data.copy_(saved)


class Relaxed(Mixed):
    """alpha is trained by Adam on validation images, in turns with the weights: DARTS's Algorithm 1."""

    arch_lr: float = Field(3e-4, gt=0)
    """Adam's rate for the architecture parameters."""
    arch_beta1: float = Field(0.5, ge=0, lt=1)
    """Adam's beta1 for the architecture parameters; beta2 is 0.999."""
    arch_weight_decay: float = Field(1e-3, ge=0)
    """L2 decay of the architecture parameters."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        return heaviest_only(run) or super().refuse(run)

    def architecture_gradient(self, run: Run, batch: Batch) -> list[Tensor] | None:
        """The gradient for alpha, or None to let it rest; by default that of the validation loss."""
        return gradient(loss(run, validation_batch(run), self.mixture(run, "valid")), self._alphas)

    @hookimpl(wrapper=True)
    def make_optimizer(self, run: Run) -> Generator[None, Any, Any]:
        adam = torch.optim.Adam(
            self._alphas, self.arch_lr, (self.arch_beta1, 0.999), weight_decay=self.arch_weight_decay
        )
        self._optimizer = run.track("architecture", adam)
        return (yield)

    @hookimpl(wrapper=True)
    def train_step(self, run: Run, batch: Batch) -> Generator[None, bool, bool]:
        slopes = self.architecture_gradient(run, batch)
        if slopes is not None:
            for alpha, slope in zip(self._alphas, slopes, strict=True):
                alpha.grad = slope
            self._optimizer.step()
        return (yield)


def heaviest_only(run: Run) -> str | None:
    """Why a method that keeps the heaviest operation of an edge cannot run on this space, or None."""
    if len(run.space.choices) > len(run.space.relaxed) > 0:
        return (
            f"{run.recipe.method} looks for the heaviest operation of an edge, and in this variant of "
            f"{run.recipe.space} an edge has any number; that is for methods that prune."
        )
    return None


def validation_batch(run: Run) -> Batch:
    """The batch of validation images, augmented as training images are, that the architecture is trained on now."""
    size, count = run.recipe.train.batch_size, len(run.data.valid)
    epoch, place = divmod(run.step, -(-count // size))
    order = shuffled(count, run.generator("valid order", step=epoch).initial_seed())
    rows = order[place * size : (place + 1) * size].to(run.device)
    return run.data.training_batch(rows, run.generator("valid augment"), "valid")


def loss(run: Run, batch: Batch, mixture: Mixture) -> Tensor:
    """The loss of a mixture on a batch, a scalar."""
    logits = run.forward(batch.images, [mixture])
    losses: Tensor = run.hook.compute_loss(run=run, logits=logits, batch=batch, archs=[mixture])
    return losses[0]


def gradient(value: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """The gradients of a scalar; zeros for what it does not depend on."""
    return list(torch.autograd.grad(value, parameters, materialize_grads=True))


def gumbel(run: Run, purpose: str, alphas: list[Tensor]) -> list[Tensor]:
    """Standard Gumbel noise in the shapes of alpha; the most likely option wins with its softmax probability."""
    rng = run.generator(f"gumbel {purpose}")
    return [
        -torch.empty(len(a), dtype=torch.float64).exponential_(generator=rng).log().to(a.device, a.dtype)
        for a in alphas
    ]
