"""Zero-Cost-PT: Xiang, Dudziak, Abdelfattah, Chau, Lane and Wen, Zero-Cost Operation Scoring in Differentiable
Architecture Search, AAAI 2023."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from nasbench import Arch, Choice, Method, Mixture, Run, hookimpl
from nasbench.data import Batch
from nasbench_zerocost.naswot import naswot
from nasbench_zerocost.proxy import training_batches


class ZeroCostPT(Method):
    """On the untrained supernet, edge after edge, that operation stays whose removal hurts the proxy most. This gives
    one candidate for each random order of the edges; the candidate with the best proxy is taken."""

    calls: ClassVar[frozenset[str]] = frozenset({"build_supernet"})

    candidates: int = Field(10, ge=1)
    """Orders of the edges that are tried (N)."""
    validation_batches: int = Field(100, ge=1)
    """Batches on which the candidates are compared (V)."""
    batch_size: int = Field(64, ge=2)
    """Training images of a batch."""
    removed: Literal["silenced", "absent"] = "silenced"
    """Whether the rectifiers of an operation that is removed still count, as in the published code, or not."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if not run.space.relaxed:
            return f"{run.recipe.method} takes operations out of a mixture; {run.recipe.space} does not mix them."
        needed, there = self.validation_batches * self.batch_size, len(run.data.train)
        return f"{run.recipe.method} looks at {needed} training images, and there are {there}." * (needed > there)

    @hookimpl
    def train(self) -> bool:
        """There is nothing to train."""
        return True

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        def loop() -> list[tuple[Arch, float]]:
            run.net = run.hook.build_supernet(run=run)
            batches = training_batches(run, self.validation_batches, self.batch_size)
            for _ in run.steps(self.candidates):
                arch = self.propose(run, batches[0])
                score = sum(self.proxy(run, arch, batch) for batch in batches)
                run.state.setdefault("found", []).append((arch, score))
            return run.state["found"]

        found = {tuple(arch): score for arch, score in run.stage("perturb", loop)}
        how = f"naswot of the untrained supernet, {len(found)} candidates"
        return [Choice(max(found, key=found.__getitem__), selected_on=how)]

    def propose(self, run: Run, batch: Batch) -> Arch:
        """The architecture that one random order of the edges leads to."""
        like = next(run.net.parameters())
        mixture = [torch.full((len(o),), 1 / len(o), device=like.device, dtype=like.dtype) for o in self.options(run)]
        strengths = {}
        for edge in run.rng("order").sample(range(len(mixture)), len(mixture)):
            left = [self.proxy(run, self.without(mixture, edge, [o]), batch) for o in range(len(mixture[edge]))]
            strengths[edge] = ranks(left).to(like)
            mixture[edge] = (strengths[edge] == len(left) - 1).to(like)
        if list(run.space.relaxed) != list(run.space.choices):  # not every edge stays: that of the highest number does
            everything = range(max(map(len, mixture)))
            left = [self.proxy(run, self.without(mixture, edge, everything), batch) for edge in range(len(mixture))]
            strengths = {edge: strengths[edge] + 100 * rank for edge, rank in enumerate(ranks(left))}
        return run.space.discretize([strengths[edge] for edge in range(len(mixture))])

    def options(self, run: Run) -> list[tuple[str, ...]]:
        """The operations that each edge mixes."""
        return list(run.space.relaxed.values())

    def without(self, mixture: Mixture, edge: int, options: list[int] | range) -> Mixture:
        """The mixture with these operations of an edge taken out; the others keep their weights."""
        nothing = 1e-20 if self.removed == "silenced" else 0.0  # exact zeros are not computed
        rest: Tensor = mixture[edge].clone()
        rest[[o for o in options if o < len(rest)]] *= nothing
        return [*mixture[:edge], rest, *mixture[edge + 1 :]]

    def proxy(self, run: Run, arch: Arch | Mixture, batch: Batch) -> float:
        """The naswot of a subnet or a mixture, at full precision as every proxy: it counts signs."""
        return naswot(lambda images: run.net(images, [arch]), batch.images)


def ranks(left: list[float]) -> Tensor:
    """From what is left of the proxy without each: n - 1 for the one whose removal hurts most, 0 for the least."""
    order = sorted(range(len(left)), key=lambda i: (-left[i], -i))
    return torch.tensor([float(order.index(i)) for i in range(len(left))])
