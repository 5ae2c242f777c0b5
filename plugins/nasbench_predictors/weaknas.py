"""WeakNAS: Wu and others, Stronger NAS with Weaker Predictors, NeurIPS 2021."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from nasbench import Arch, Choice, Method, Run, hookimpl
from nasbench_predictors.table import one_hot, refuse


class WeakNAS(Method):
    """Look up some random architectures; then, again and again, fit a small predictor to all that were looked up, and
    look up a few random ones of those that it ranks highest. Take the best of all."""

    keeps_within: ClassVar[bool] = True

    queries: int = Field(200, ge=1)
    """Architectures looked up, each a network trained alone; the paper goes up to 1,000."""
    initial: int = Field(100, ge=2)
    """Random ones to begin with."""
    batch: int = Field(10, ge=1)
    """Looked up between two predictors (M)."""
    top: int = Field(100, ge=1)
    """How many of the predictor's highest they are drawn from (N)."""
    predictor: Literal["mlp", "random-forest", "boosted-trees"] = "mlp"
    """What predicts the validation accuracy from the options, one-hot."""
    hidden: list[int] = Field([1000, 1000, 1000, 1000], min_length=1)
    """Units of the MLP's hidden layers."""
    iterations: int = Field(100, ge=1)
    """Passes of the MLP over what was looked up; else the number of trees."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        return refuse(run)

    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        assert run.truth is not None
        truth, pool = run.truth, [arch for arch in run.truth.architectures() if arch in run.space and run.fits(arch)]
        codes, queries = one_hot(run.space, pool), min(self.queries, len(pool))

        def loop() -> list[tuple[Arch, float]]:
            rounds = 1 + max(0, -(-(queries - self.initial) // self.batch))
            for _ in run.steps(rounds):
                known = {tuple(arch): accuracy for arch, accuracy in run.state.get("known", [])}
                fresh = self.propose(run, pool, codes, known) if known else pool
                count = min(self.batch if known else self.initial, queries - len(known))
                drawn = run.rng("archs").sample(fresh, min(count, len(fresh)))
                known |= zip(drawn, truth.query(drawn, "valid", run.recipe.target), strict=True)
                run.state["known"] = list(known.items())
                run.info = {"best": max(known.values())}
            return run.state["known"]

        found = {tuple(arch): accuracy for arch, accuracy in run.stage("search", loop)}
        run.queries = list(found)
        how = f"validation top-1 in the table, {len(found)} queries"
        return [Choice(max(found, key=found.__getitem__), selected_on=how)]

    def propose(self, run: Run, pool: list[Arch], codes: np.ndarray, known: dict[Arch, float]) -> list[Arch]:
        """What is new among the highest; where too little is, the highest of the new."""
        rows = {arch: i for i, arch in enumerate(pool)}
        accuracies = np.array(list(known.values()))
        model = self.model(run.rng("predictor").getrandbits(31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an MLP that has not converged: so many passes are meant
            model.fit(codes[[rows[arch] for arch in known]], (accuracies - accuracies.mean()) / (accuracies.std() or 1))
        ranked = [pool[i] for i in np.argsort(-model.predict(codes), kind="stable")]
        fresh = [arch for arch in ranked[: self.top] if arch not in known]
        return fresh if len(fresh) >= self.batch else [arch for arch in ranked if arch not in known][: self.batch]

    def model(self, seed: int) -> Any:
        """A fresh predictor with `fit` and `predict`."""
        from sklearn import ensemble, neural_network

        if self.predictor == "mlp":
            return neural_network.MLPRegressor(
                hidden_layer_sizes=self.hidden, max_iter=self.iterations, random_state=seed
            )
        if self.predictor == "random-forest":
            return ensemble.RandomForestRegressor(self.iterations, max_depth=10, random_state=seed)
        return ensemble.GradientBoostingRegressor(n_estimators=self.iterations, random_state=seed)
