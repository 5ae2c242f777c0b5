"""SUMNAS: Ha et al., Supernet with Unbiased Meta-Features for Neural Architecture Search, ICLR 2022."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, Literal

import torch
from nasbench_oneshot.fairnas import FairNAS
from pydantic import Field, PrivateAttr

from nasbench import Arch, Run, hookimpl
from nasbench.data import Batch
from nasbench.hookspecs import CALLS
from nasbench.oneshot import place_rates, places_rates_inside


class SUMNAS(FairNAS):
    """Each path of a fair step adapts the same weights by some steps of its own; the supernet then moves by the mean
    of where they went (Reptile), so that no path overrides what another has learnt.

    The recipe's `train` is the outer step; `sumnas` holds the inner ones.
    """

    calls: ClassVar[frozenset[str]] = CALLS["train_step"]

    inner_steps: int = Field(2, ge=1)
    """SGD steps of each path on the step's batch, before the next path starts from the old weights."""
    inner_lr: float = Field(0.05, gt=0)
    """Their learning rate, which does not fall."""
    inner_momentum: float = Field(0.9, ge=0, lt=1)
    """Their momentum."""
    inner_clip: float | None = Field(5.0, gt=0)
    """Clip the norm of their gradients; null does not."""
    inner_buffers: Literal["fresh", "kept"] = "fresh"
    """Whether a path begins without momentum, or with what the path before it, which started from the same weights,
    left behind, as in the code of PA&DA."""
    _inner: Any = PrivateAttr(None)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if run.recipe.train.update_scope == "all":
            return "sumnas moves what a path has used; leave train.update_scope at subnet."
        return None

    @hookimpl(wrapper=True)
    def make_optimizer(self, run: Run) -> Generator[None, Any, Any]:
        sgd = torch.optim.SGD(run.net.parameters(), self.inner_lr, self.inner_momentum, foreach=True)
        self._inner = run.track("inner", sgd)
        return (yield)

    @hookimpl
    def train_step(self, run: Run, batch: Batch) -> bool:
        archs = run.hook.sample_archs(run=run)
        rates = run.hook.learning_rates(run=run, archs=archs)
        inside = places_rates_inside(run, len(archs))
        start = {p: p.detach().clone() for p in run.net.parameters()}
        moves: dict[torch.Tensor, torch.Tensor] = {}
        losses = []
        for arch, rate in zip(archs, rates, strict=True):
            losses.append(self.adapt(run, batch, arch))
            with torch.no_grad():
                for p, old in start.items():
                    if p.grad is not None:  # the path went through it
                        moves[p] = moves.get(p, 0) + (old - p) * ((rate if inside else 1) / len(archs))
                        p.copy_(old)
        for p in start:
            p.grad = moves.get(p)
        place_rates(run, rates, inside)
        run.hook.update(run=run, archs=archs)
        run.info = {"loss": torch.stack(losses).mean(), "lr": sum(rates) / len(rates)}
        return True

    def adapt(self, run: Run, batch: Batch, arch: Arch) -> torch.Tensor:
        """The inner steps of one path, in place; gradients are left where it went. Returns its first loss."""
        first = None
        if self.inner_buffers == "fresh":
            self._inner.state.clear()
        for _ in range(self.inner_steps):
            self._inner.zero_grad(set_to_none=True)
            logits = run.forward(batch.images, [arch])
            loss = run.hook.compute_loss(run=run, logits=logits, batch=batch, archs=[arch])[0]
            loss.backward()
            if self.inner_clip is not None:
                torch.nn.utils.clip_grad_norm_(run.net.parameters(), self.inner_clip, foreach=True)
            self._inner.step()
            first = loss.detach() if first is None else first
        assert first is not None
        return first
