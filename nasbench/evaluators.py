"""The built-in evaluators: how well the space was ranked, and how good the pick is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nasbench import hookimpl
from nasbench.metrics import accuracy_density, kendall_tau, regret, tau_interval
from nasbench.plugins import Evaluator
from nasbench.records import Choice, Metric

if TYPE_CHECKING:
    from nasbench.run import Run


class Ranking(Evaluator):
    """Kendall's tau of the supernet's scores against ground truth, and of the parameter count beside it."""

    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        if not run.scores or run.truth is None:
            return []
        archs = [arch for arch in run.scores if arch in run.truth]
        truth = run.truth.query(archs, "test", run.recipe.target)
        params = [float(run.truth.space.cost(arch)["params"]) for arch in archs]
        about: dict[str, Any] = {
            "dataset": run.recipe.target,
            "split": "test",
            "subset": run.recipe.score.subset,
            "n": len(archs),
        }
        rankings = {
            "kendall_tau": ([run.scores[arch] for arch in archs], "supernet scores"),
            "params_tau": (params, "parameter counts, which cost no training,"),
        }
        metrics = []
        for name, (values, what) in rankings.items():
            low, high = tau_interval(values, truth) or (None, None)
            definition = f"Kendall's tau-b between {what} and true test accuracy; bootstrap interval over architectures"
            metrics.append(
                Metric(
                    name=name,
                    value=kendall_tau(values, truth),
                    low=low,
                    high=high,
                    definition=definition,
                    **about,
                )
            )
        return metrics


class Pick(Evaluator):
    """What each chosen architecture costs and, where ground truth knows it, what it truly reaches."""

    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        return [metric for i, choice in enumerate(choices) for metric in self.describe(run, i, choice)]

    def describe(self, run: Run, index: int, choice: Choice) -> list[Metric]:
        """The metrics of one choice. Costs are those of the network whose accuracy the table holds."""
        known = run.truth is not None and choice.arch in run.truth
        space = run.truth.space if known and run.truth else run.space
        cost = space.cost(choice.arch)
        metrics = [
            Metric(name="params", value=cost["params"], definition="trainable parameters of the pick's network"),
            Metric(
                name="madds",
                value=cost["madds"],
                definition="multiply-adds of the pick's network for one image",
            ),
        ]
        if known and run.truth:
            (top1,) = run.truth.query([choice.arch], "test", run.recipe.target)
            best = float(run.truth.column("test", run.recipe.target).max())
            about: dict[str, Any] = {
                "dataset": run.recipe.target,
                "split": "test",
                "unit": "%",
                "selected_on": choice.selected_on,
            }
            metrics += [
                Metric(name="top1", value=top1, definition="true top-1 of the pick, trained alone", **about),
                Metric(
                    name="regret",
                    value=regret(best, top1),
                    definition="best top-1 in the table minus the pick's",
                    **about,
                ),
                Metric(
                    name="accuracy_density",
                    value=accuracy_density(top1, cost["params"]),
                    definition="true top-1 (%) of the pick per million parameters",
                    **{**about, "unit": "%/M"},
                ),
            ]
        return [metric.model_copy(update={"choice": index}) for metric in metrics]
