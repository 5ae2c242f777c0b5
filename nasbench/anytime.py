"""How soon a search finds how much: the best so far against what was spent on looking results up."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from nasbench import hookimpl
from nasbench.metrics import improvements
from nasbench.plugins import Evaluator
from nasbench.records import Choice, Metric

if TYPE_CHECKING:
    from nasbench.running import Run


class Anytime(Evaluator):
    """The best validation accuracy so far and its test accuracy, at each query that finds a better one.

    The queries are those of a search on the table (`run.queries`), or else the ranked architectures, the best score
    first: what training the supernet's favourites alone, one by one, would bring. A curve is a staircase; only its
    steps are kept, with the number of queries and, where the table knows it, the training time they stand for.
    """

    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        truth, target = run.truth, run.recipe.target
        order = run.queries or sorted(run.scores, key=lambda arch: -run.scores[arch])
        order = [arch for arch in order if truth and arch in truth]
        if truth is None or not order or not truth.has("valid", target):
            return []
        valid, test = truth.query(order, "valid", target), truth.query(order, "test", target)
        steps = improvements(valid)
        spent: dict[str, list[int | float]] = {"queries": [i + 1 for i in steps]}
        if target in truth.seconds:
            seconds = list(accumulate(truth.training_seconds(order, target)))
            spent["seconds"] = [seconds[i] for i in steps]
        what = f"of the best in validation among {len(order)} networks trained alone, " + (
            "in the order the search asked for them" if run.queries else "in the order of the supernet's scores"
        )
        return [
            Metric(
                name=f"anytime_{split}",
                value=values[steps[-1]],
                unit="%",
                definition=f"{split} accuracy {what}",
                dataset=target,
                split=split,
                subset="" if run.queries else run.recipe.score.subset,
                selected_on="validation top-1 in the table",
                n=len(order),
                curve={**spent, "value": [values[i] for i in steps]},
            )
            for split, values in (("valid", valid), ("test", test))
        ]
