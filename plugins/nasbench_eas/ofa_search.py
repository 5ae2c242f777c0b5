"""OFA-T and OFA-V, the baselines of EAS: an accuracy predictor, and evolution for each scenario."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import torch
from pydantic import Field, PrivateAttr

from nasbench import Arch, Run, hookimpl
from nasbench_eas.deployment import Deployment, Scenario, mean
from nasbench_eas.elastic import elastic
from nasbench_eas.predictor import Predictor, evolve, fit
from nasbench_eas.random_in_budget import random_legal
from nasbench_eas.superclass import accuracies


class OFAT(Deployment):
    """Measure many subnets on validation images, fit a predictor for each superclass, evolve for each scenario.

    The supernet is trained without superclass dropout; `ofa-t+superclass-dropout` searches the one that EAS has.
    """

    samples: int = Field(16_000, ge=2)
    """Subnets measured, each decision drawn by itself; their accuracies on all superclasses are measured at once."""
    predictor_epochs: int = Field(250, ge=1)
    """Passes of a predictor over the measured subnets."""
    predictor_batch_size: int = Field(256, ge=1)
    """Subnets a step."""
    predictor_lr: float = Field(0.1, gt=0)
    """Initial learning rate of SGD with momentum 0.9 and decay 1e-4, falling to 0 by a cosine."""
    generations: int = Field(500, ge=1)
    """Generations of the evolution for a scenario."""
    population: int = Field(100, ge=2)
    """Architectures of a generation; a quarter stay as parents."""
    _predictors: list[Predictor] = PrivateAttr(default_factory=list)

    @hookimpl
    def train(self, run: Run) -> bool:
        super().train(run)
        settings = self.model_dump(mode="json", include={"samples", "superclasses", "recalibration_images"})
        shared = {"supernet": self.shared(run), "measured": settings, "batch": run.recipe.score.batch_size}
        measured = run.stage("accuracies", lambda: self.measure(run), shared=shared)
        with run.seeded("predictors"):
            inputs = len(elastic(run).encode(measured[0][0]))
            count = len(self.of(run)) if self.per_superclass else 1
            self._predictors = [Predictor(inputs) for _ in range(count)]
        run.stage("predictor", lambda: self.fit(run, measured))
        return True

    def measure(self, run: Run) -> list[tuple[Arch, list[float]]]:
        """Random subnets with their accuracies (%) on each superclass."""
        for _ in run.steps(self.samples):
            rng = run.rng("measured")
            arch = tuple(rng.choice(options) for options in run.space.options)
            found = accuracies(run, self.network(run, arch), self.of(run), "valid")
            run.state.setdefault("measured", []).append((arch, found))
            run.info = {"top1": mean(found)}
        return [(tuple(arch), found) for arch, found in run.state["measured"]]

    def fit(self, run: Run, measured: list[tuple[Arch, list[float]]]) -> list[float]:
        """Fit the predictors; for each the share of the variance that it leaves unexplained."""
        codes = torch.tensor([elastic(run).encode(arch) for arch, _ in measured], dtype=torch.float32)
        unexplained = []
        for i, predictor in enumerate(self._predictors):
            values = [found[i] if self.per_superclass else mean(found) for _, found in measured]
            left = fit(
                predictor,
                codes,
                torch.tensor(values) / 100,
                run.generator(f"predictor {i}"),
                epochs=self.predictor_epochs,
                batch_size=self.predictor_batch_size,
                lr=self.predictor_lr,
            )
            unexplained.append(left)
        return unexplained

    def propose(self, run: Run, scenarios: list[Scenario], rng: torch.Generator) -> list[list[Arch]]:
        draw = random.Random(int(torch.randint(2**62, (1,), generator=rng)))
        return [[self.search(run, scenario, draw)] for scenario in scenarios]

    def search(self, run: Run, scenario: Scenario, rng: random.Random) -> Arch:
        """The architecture of the best predicted accuracy that evolution finds inside the budget."""
        predictor, encode = self._predictors[scenario.superclass or 0], elastic(run).encode

        def score(archs: Any) -> list[float]:
            with torch.inference_mode():
                return predictor(torch.tensor([encode(arch) for arch in archs], dtype=torch.float32)).tolist()

        return evolve(
            run.space,
            score,
            lambda arch: run.space.cost(arch)["madds"] <= scenario.budget,
            lambda: random_legal(run, scenario.budget, rng),
            rng,
            generations=self.generations,
            population=self.population,
        )

    def selected_on(self) -> str:
        return f"accuracy predicted from {self.samples} subnets' supernet validation top-1"

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {str(i): predictor.state_dict() for i, predictor in enumerate(self._predictors)}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        for i, predictor in enumerate(self._predictors):
            if str(i) in state:
                predictor.load_state_dict(state[str(i)])


class OFAV(OFAT):
    """OFA-V: one predictor of the mean over superclasses, one architecture for all of them."""

    per_superclass: ClassVar[bool] = False
