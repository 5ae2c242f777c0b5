"""PA&DA: Lu et al., Jointly Sampling Path and Data for Consistent NAS, CVPR 2023."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

import torch
from pydantic import PrivateAttr

from nasbench import Arch, BadInput, Method, Run, hookimpl
from nasbench.data import Batch, shuffled


def mix(norms: torch.Tensor, share: float) -> torch.Tensor:
    """Probabilities in proportion to these norms [n], mixed with uniform ones, which have the weight 1 - share.

    >>> mix(torch.tensor([3.0, 1.0, 0.0, 0.0]), 0.5)
    tensor([0.5000, 0.2500, 0.1250, 0.1250])
    """
    total = norms.sum()
    uniform = torch.full_like(norms, 1 / len(norms))
    return uniform if total == 0 else share * norms / total + (1 - share) * uniform


class PADA(Method):
    """Draws operations and images in proportion to the norm of their gradients, the more so the longer it trains.

    The norms are those of the epoch before; the first epoch is uniform and sees every image once.
    """

    per: Literal["operation", "decision"] = "operation"
    """Whether an operation has one probability for all decisions that offer it, or one for each."""
    unseen: Literal["keep", "zero"] = "keep"
    """What an image that an epoch has not drawn weighs in the next: what it weighed, or, as in the official code,
    nothing, so that it is drawn by the uniform share alone."""
    _owners: dict[str, list[str]] = PrivateAttr(default_factory=dict)
    """For each parameter, the operations in every subnet that has used it: its own, or none if it is shared."""
    _sums: dict[str, tuple[int, float]] = PrivateAttr(default_factory=dict)
    """Of each operation in the running epoch: in how many steps it was, and the sum of its gradients' norms."""
    _norms: dict[str, float] = PrivateAttr(default_factory=dict)
    """The mean norm of each operation's gradient in the last epoch that had it."""
    _images: dict[str, torch.Tensor] = PrivateAttr(default_factory=dict)
    """Of each training image: `times` drawn and `sum` of norms in the running epoch, and the `norm` from before."""
    _rows: Any = PrivateAttr(None)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if run.recipe.engine.processes > 1:
            return "pa-da weighs each image by its own gradient, which several processes do not share; run it in one."
        net = run.hook.build_supernet(run=run)
        first, last = (tuple(options[i] for options in run.space.options) for i in (0, -1))
        if len({frozenset(used(run, net, arch)) for arch in (first, last)}) == 1:
            return f"pa-da needs operations with weights of their own, and in {run.space.name} all share theirs."
        return None

    # ------------------------------------------------------------------ path

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        rng, share = run.rng("archs"), run.epoch / run.recipe.train.epochs
        arch = []
        for i, options in enumerate(run.space.options):
            norms = torch.tensor([self._norms.get(self.key(run, i, o), 0.0) for o in options], dtype=torch.float64)
            arch += rng.choices(options, mix(norms, share).tolist())
        return [tuple(arch)]

    def key(self, run: Run, decision: int, option: int) -> str:
        """What an option's gradients are counted under."""
        name = run.space.decisions[decision]
        operation = run.space.choices[name][option]
        return operation if self.per == "operation" else f"{name}={operation}"

    @hookimpl(wrapper=True)
    def update(self, run: Run, archs: list[Arch]) -> Generator[None, bool, bool]:
        """Before they are clipped, the gradients' norms are added up by operation."""
        free = [i for i, options in enumerate(run.space.options) if len(options) > 1]
        present = [self.key(run, i, archs[0][i]) for i in free]
        named = [(name, p.grad) for name, p in run.net.named_parameters() if p.grad is not None]
        sizes = torch.stack(torch._foreach_norm([grad for _, grad in named])).tolist()
        found = dict.fromkeys(present, 0.0)
        for (name, _), size in zip(named, sizes, strict=True):
            if size > 0:
                self._owners[name] = [k for k in self._owners.get(name, found) if k in found]
                if len(self._owners[name]) == 1:
                    found[self._owners[name][0]] += size / present.count(self._owners[name][0])
        for k, size in found.items():
            times, total = self._sums.get(k, (0, 0.0))
            self._sums[k] = (times + 1, total + size)
        return (yield)

    # ------------------------------------------------------------------ data

    @hookimpl
    def next_batch(self, run: Run) -> Batch:
        count, seed = len(run.data.train), run.generator("order", step=run.epoch).initial_seed()
        if not self._images:
            self._images = {k: torch.zeros(count, dtype=torch.float64) for k in ("times", "sum", "norm")}
        if run.epoch == 0:
            order = shuffled(count, seed)
        else:
            chances = mix(self._images["norm"], run.epoch / run.recipe.train.epochs)
            order = torch.multinomial(chances, count, True, generator=torch.Generator().manual_seed(seed))
        start = (run.step % run.steps_per_epoch) * run.recipe.train.batch_size
        self._rows = order[start : start + run.recipe.train.batch_size]
        return run.data.training_batch(self._rows.to(run.device), run.generator("augment"))

    @hookimpl(wrapper=True)
    def compute_loss(
        self, run: Run, logits: torch.Tensor, batch: Batch, archs: list[Arch]
    ) -> Generator[None, torch.Tensor, torch.Tensor]:
        """The norm of an image's gradient at the logits is that of softmax minus one-hot."""
        if len(archs) > 1:
            raise BadInput(f"pa-da trains one subnet a step, and {len(archs)} were drawn.")
        scores = logits[0].detach()
        if batch.class_mask is not None:
            scores = scores.masked_fill(~batch.class_mask, -torch.inf)
        wrong = scores.softmax(1) - torch.nn.functional.one_hot(batch.labels, scores.shape[1])
        self._images["sum"].index_add_(0, self._rows, wrong.norm(dim=1).double().cpu())
        self._images["times"].index_add_(0, self._rows, torch.ones(len(self._rows), dtype=torch.float64))
        return (yield)

    # ------------------------------------------------------------------ both

    @hookimpl
    def after_epoch(self, run: Run) -> None:
        self._norms |= {k: total / times for k, (times, total) in self._sums.items()}
        if not any(self._norms.values()):
            raise BadInput(f"pa-da found no operation with weights of its own in {run.space.name}.")
        times, total, norm = (self._images[k] for k in ("times", "sum", "norm"))
        before = norm if self.unseen == "keep" else torch.zeros_like(norm)
        zero = torch.zeros_like(norm)
        self._images = {"times": zero, "sum": zero.clone(), "norm": torch.where(times > 0, total / times, before)}
        self._sums = {}

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {"owners": self._owners, "sums": self._sums, "norms": self._norms, "images": self._images}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        self._owners, self._sums, self._norms = state["owners"], state["sums"], state["norms"]
        self._images = state["images"]


def used(run: Run, net: torch.nn.Module, arch: Arch) -> list[str]:
    """Names of the parameters that a subnet of this net uses."""
    images = run.data.training_batch(torch.arange(2, device=run.device), run.generator("probe")).images
    names, parameters = zip(*net.named_parameters(), strict=True)
    total = run.predict(net, images, [arch]).square().sum()
    grads = torch.autograd.grad(total, parameters, allow_unused=True)
    return [name for name, grad in zip(names, grads, strict=True) if grad is not None]
