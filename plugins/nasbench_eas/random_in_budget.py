"""Random architectures inside a budget: the baseline of EAS, Fig. 5, on the same supernet."""

from __future__ import annotations

import random

import torch

from nasbench import Arch, Run
from nasbench_eas.deployment import Deployment, Scenario


class RandomInBudget(Deployment):
    """For each scenario one random architecture with R <= B, each decision drawn by itself as once-for-all does."""

    def propose(self, run: Run, scenarios: list[Scenario], rng: torch.Generator) -> list[list[Arch]]:
        draw = random.Random(int(torch.randint(2**62, (1,), generator=rng)))
        return [[random_legal(run, s.budget, draw)] for s in scenarios]

    def selected_on(self) -> str:
        return "nothing, drawn at random"


def random_legal(run: Run, budget: float, rng: random.Random, tries: int = 1000) -> Arch:
    """A random architecture inside a budget in MAdds that some architecture keeps to.

    Drawn until one is inside; where so few are that none was, the last is shrunk by random decisions, one option each.
    """
    space = run.space
    for _ in range(tries):
        arch = tuple(rng.choice(options) for options in space.options)
        if space.cost(arch)["madds"] <= budget:
            return arch
    while space.cost(arch)["madds"] > budget:
        i = rng.choice([i for i, o in enumerate(arch) if o > space.options[i][0]])
        arch = space.replace(arch, i, arch[i] - 1)
    return arch
