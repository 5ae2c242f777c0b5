"""The built-in evaluators: how well the space was ranked, and how good the pick is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from nasbench import hookimpl
from nasbench.metrics import (
    accuracy_density,
    best_rank_at,
    complexity_bias_inferred,
    complexity_convergence_inferred,
    kendall_tau,
    precision_at,
    regret,
    spearman,
    tau_interval,
)
from nasbench.networks import top1
from nasbench.plugins import Evaluator
from nasbench.records import Choice, Metric

if TYPE_CHECKING:
    from nasbench.running import Run
    from nasbench.space import Arch


class Ranking(Evaluator):
    """How the supernet's scores rank architectures against ground truth, and how the parameter count does.

    The same scores are ranked against every other dataset of the table too: `kendall_tau.cifar100`.
    """

    K: ClassVar[int] = 10

    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        if not run.scores or run.truth is None:
            return []
        archs = [arch for arch in run.scores if arch in run.truth]
        truth = run.truth.query(archs, "test", run.recipe.target)
        scores = [run.scores[arch] for arch in archs]
        costs = [run.truth.space.cost(arch) for arch in archs]
        params, weights = ([float(cost[name]) for cost in costs] for name in ("params", "conv_weights"))
        of = "and true test accuracy; the interval is a bootstrap over architectures"
        found = [
            _tau("kendall_tau", f"Kendall's tau-b between supernet scores {of}", scores, truth),
            _tau(
                "params_tau", f"Kendall's tau-b between parameter counts, which cost no training, {of}", params, truth
            ),
            self.reduced(run, archs, scores, truth),
            Metric(name="spearman", value=spearman(scores, truth), definition="Spearman's rank correlation"),
            Metric(
                name=f"precision_at_{self.K}",
                value=precision_at(self.K, scores, truth),
                definition=f"share of the {self.K} best by score that are among the {self.K} truly best",
            ),
            Metric(
                name=f"best_rank_at_{self.K}",
                value=best_rank_at(self.K, scores, truth),
                definition=f"true rank (1 is best) of the truly best among the {self.K} best by score",
            ),
            Metric(
                name="complexity_bias_inferred",
                value=complexity_bias_inferred(weights, scores, truth),
                definition="of the pairs ordered against the truth, the share preferring fewer weights (0.5: unbiased)",
            ),
            Metric(
                name="complexity_convergence_inferred",
                value=complexity_convergence_inferred(weights, scores, truth),
                definition="Kendall's tau-b between weights and score/truth; 0 is fair",
            ),
        ]
        elsewhere = [
            Metric(
                name=f"{name}.{other}",
                value=kendall_tau(values, run.truth.query(archs, "test", other)),
                definition=f"Kendall's tau-b between the same {what} and true test accuracy on {other}",
                dataset=other,
            )
            for other in run.truth.others(run.recipe.target)
            for name, what, values in (("kendall_tau", "scores", scores), ("params_tau", "parameter counts", params))
        ]
        about = {"split": "test", "subset": run.recipe.score.subset}
        return [
            m.model_copy(update={**about, "dataset": m.dataset or run.recipe.target, "n": m.n or len(archs)})
            for m in [*found, *elsewhere]
        ]

    def reduced(self, run: Run, archs: list[Arch], scores: list[float], truth: list[float]) -> Metric:
        """Tau over classes of architectures that compute the same, each class by its means."""
        classes: dict[Hashable, list[int]] = defaultdict(list)
        for i, arch in enumerate(archs):
            classes[run.space.canonical(arch)].append(i)
        score, true = ([fmean(values[i] for i in rows) for rows in classes.values()] for values in (scores, truth))
        definition = "Kendall's tau-b over classes of architectures that compute the same, by their means"
        return Metric(name="kendall_tau_reduced", value=kendall_tau(score, true), definition=definition, n=len(classes))


def _tau(name: str, definition: str, values: list[float], truth: list[float]) -> Metric:
    low, high = tau_interval(values, truth) or (None, None)
    return Metric(name=name, value=kendall_tau(values, truth), low=low, high=high, definition=definition)


class Pick(Evaluator):
    """What each chosen architecture costs and, where ground truth knows it, what it truly reaches."""

    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        return [metric for i, choice in enumerate(choices) for metric in self.describe(run, i, choice)]

    def describe(self, run: Run, index: int, choice: Choice) -> list[Metric]:
        """The metrics of one choice. Its own network is measured on the test images, which one class of classes
        (a superclass) needs an evaluator of its own for; else the table is asked, and the costs are its network's.
        """
        table = run.truth if choice.network is None and run.truth and choice.arch in run.truth else None
        cost = (table.space if table else run.space).cost(choice.arch)
        metrics = [
            Metric(name="params", value=cost["params"], definition="trainable parameters of the pick's network"),
            Metric(
                name="madds",
                value=cost["madds"],
                definition="multiply-adds of the pick's network for one image",
            ),
        ]
        about: dict[str, Any] = {"split": "test", "unit": "%", "selected_on": choice.selected_on}
        if table:
            (accuracy,) = table.query([choice.arch], "test", run.recipe.target)
            best = float(table.column("test", run.recipe.target).max())
            about["dataset"] = run.recipe.target
            metrics += [
                Metric(name="top1", value=accuracy, definition="true top-1 of the pick, trained alone", **about),
                Metric(
                    name="regret",
                    value=regret(best, accuracy),
                    definition="best top-1 in the table minus the pick's",
                    **about,
                ),
            ]
            metrics += [
                Metric(
                    name=f"top1.{other}",
                    value=table.query([choice.arch], "test", other)[0],
                    definition=f"true top-1 of the same pick, trained alone on {other}",
                    **{**about, "dataset": other},
                )
                for other in table.others(run.recipe.target)
            ]
        elif choice.network is not None and run.data.test is not None and "superclass" not in choice.scenario:
            accuracy = top1(run, choice.network, "test")
            about["dataset"] = run.data.name
            metrics.append(Metric(name="top1", value=accuracy, definition="top-1 of the pick's network", **about))
        if "dataset" in about:
            metrics.append(
                Metric(
                    name="accuracy_density",
                    value=accuracy_density(accuracy, cost["params"]),
                    definition="true top-1 (%) of the pick per million parameters",
                    **{**about, "unit": "%/M"},
                )
            )
        return [metric.model_copy(update={"choice": index}) for metric in metrics]
