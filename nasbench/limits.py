"""What a selection may cost: `select.within`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nasbench import costs
from nasbench.budget import Budget
from nasbench.plugins import answerer

if TYPE_CHECKING:
    from nasbench.running import Run
    from nasbench.space import Arch

Cost = Callable[["Arch"], "float | None"]


def limits(run: Run) -> list[tuple[Budget, Cost]]:
    """The limits of a run, each with what an architecture costs by it; None stands for unknown.

    Parameters and multiply-adds are of the network that the table knows, or else of the run's.
    """
    return [(budget, _cost(run, budget)) for budget in map(Budget.parse_cost, run.recipe.select.within)]


def _cost(run: Run, budget: Budget) -> Cost:
    network = run.truth.space if run.truth is not None else run.space
    if budget.name in ("madds", "params"):
        return lambda arch: network.cost(arch)[budget.name]
    table, what = costs.measured(run.space, budget.name, run.recipe.target)
    return lambda arch: table.value(network.number(arch), what)


def refuse_limits(run: Run) -> str | None:
    """Why a run cannot keep to its limits: its method does not look at them, or nothing does keep to them."""
    if not run.recipe.select.within:
        return None
    owner = answerer(run.manager, "search") or answerer(run.manager, "select")
    if owner is not None and not owner.keeps_within:
        return f"{run.recipe.method} does not select within limits; leave select.within out."
    pool = run.subset()
    if not any(map(run.fits, pool)):
        least = {str(b): [c for c in map(cost, pool) if c is not None] for b, cost in run.limits}
        have = ", ".join(f"{text}, where the least is {min(c):.4g}" for text, c in least.items() if c)
        return (
            f"None of the {len(pool)} architectures of {run.recipe.score.subset} is within {have or 'what is known'}."
        )
    return None
