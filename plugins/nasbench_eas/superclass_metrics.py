"""What a network for a superclass and a budget is worth: the numbers of the EAS paper's tables."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch

from nasbench import Choice, Evaluator, Metric, Run, hookimpl
from nasbench.budget import Budget
from nasbench_eas.deployment import Deployment, mean
from nasbench_eas.elastic import elastic
from nasbench_eas.superclass import accuracies


class SuperclassMetrics(Evaluator):
    """Top-1 inside each superclass, what the budget has become, and how alike the architectures of a budget are.

    Choices of one budget, one for each superclass, also get the means that the paper's tables print.
    """

    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        method = next((p for p in run.plugins.values() if isinstance(p, Deployment)), None)
        if method is None:
            return []
        found, top1 = [], [self.top1(run, method, choice) for choice in choices]
        madds = [run.space.cost(choice.arch)["madds"] for choice in choices]
        about = {"dataset": run.data.name, "split": "test"}
        for i, choice in enumerate(choices):
            budget = Budget.parse(choice.scenario["budget"])
            alike = [j for j, other in enumerate(choices) if other.scenario["budget"] == choice.scenario["budget"]]
            known = [value for j in alike if (value := top1[j]) is not None]
            inside, gap = int(madds[i] <= budget.value), abs(madds[i] - budget.value)
            rows: list[tuple[str, float | None, str, dict[str, Any]]] = [
                (
                    "top1",
                    top1[i],
                    "top-1 of the pick's network on the images of its superclass, answers restricted to its classes",
                    {**about, "unit": "%", "selected_on": choice.selected_on, "subset": choice.scenario["superclass"]},
                ),
                ("within_budget", inside, "1 if the pick's multiply-adds are within the budget, else 0", {}),
                ("budget_gap", gap, "distance of the pick's multiply-adds from the budget", {"unit": "MAdds"}),
            ]
            if len(alike) == len(method.of(run)):
                rows += [
                    (
                        "average_top1",
                        mean(known) if known else None,
                        "mean top-1 over the superclasses at this budget",
                        {**about, "unit": "%", "n": len(known)},
                    ),
                    (
                        "average_madds",
                        mean([float(madds[j]) for j in alike]),
                        "mean multiply-adds over the superclasses at this budget",
                        {"n": len(alike)},
                    ),
                    (
                        "similarity",
                        similarity([elastic(run).encode(choices[j].arch) for j in alike]),
                        "mean cosine between one-hot codes of the architectures for the superclasses at this budget",
                        {"n": len(alike)},
                    ),
                ]
            found += [Metric(name=n, value=v, definition=d, choice=i, **more) for n, v, d, more in rows]
        return found

    def top1(self, run: Run, method: Deployment, choice: Choice) -> float | None:
        """Top-1 (%) on the test images of the choice's superclass; None where there is none."""
        if run.data.test is None or choice.network is None:
            return None
        t = method.of(run).index(choice.scenario["superclass"])
        of = method.of(run).of_classes().to(run.device)
        rows = torch.nonzero(of[run.data.test.labels] == t)[:, 0]
        value = accuracies(run, run.to_device(choice.network).eval(), method.of(run), "test", rows)[t]
        return None if math.isnan(value) else value


def similarity(codes: list[list[int]]) -> float | None:
    """Mean cosine over all pairs of codes (Fig. B); None where there is no pair.

    >>> round(similarity([[1, 0, 1], [1, 1, 0], [1, 0, 1]]), 6)
    0.666667
    """
    tensors = [torch.tensor(code, dtype=torch.float64) for code in codes]
    pairs = [float(a @ b / (a.norm() * b.norm())) for a, b in itertools.combinations(tensors, 2)]
    return mean(pairs) if pairs else None
