"""Random search on a ground-truth table: Li and Talwalkar, Random Search and Reproducibility for NAS, UAI 2019."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nasbench import Choice, Method, Run, hookimpl


class RandomSearch(Method):
    """Look up the validation accuracy of so many architectures of the table; take the best."""

    keeps_within: ClassVar[bool] = True

    queries: int = Field(100, ge=1)
    """Architectures looked up, each a network trained alone."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if run.truth is None:
            return f"random-search looks results up, and {run.space.name} has no ground truth for {run.recipe.target}."
        return None

    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        assert run.truth is not None
        pool = [arch for arch in run.truth.architectures() if arch in run.space and run.fits(arch)]
        archs = run.queries = run.rng("archs").sample(pool, min(self.queries, len(pool)))
        accuracies = run.truth.query(archs, "valid", run.recipe.target)
        best = max(range(len(archs)), key=accuracies.__getitem__)
        return [Choice(archs[best], selected_on=f"validation top-1 in the table, {len(archs)} queries")]
