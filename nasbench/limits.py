"""What a selection may cost: `select.within`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nasbench import costs
from nasbench.budget import Budget, Window
from nasbench.plugins import answerer

if TYPE_CHECKING:
    from nasbench.running import Run
    from nasbench.space import Arch

Cost = Callable[["Arch"], "float | None"]


#: Random architectures of a space without a table, among which a search must have some to begin with.
DRAWN = 1000


def limits(run: Run) -> list[tuple[Window, Cost]]:
    """The limits of a run, each with what an architecture costs by it; None stands for unknown.

    Parameters and multiply-adds are of the network that the table knows, or else of the run's.
    """
    return [(window, _cost(run, window.most)) for window in map(Window.parse, run.recipe.select.within)]


def _cost(run: Run, budget: Budget) -> Cost:
    network = run.truth.space if run.truth is not None else run.space
    if budget.name in ("madds", "params"):
        return lambda arch: network.cost(arch)[budget.name]
    table, what = costs.measured(run.space, budget.name, run.recipe.target)
    return lambda arch: table.value(network.number(arch), what)


def refuse_limits(run: Run) -> str | None:
    """Why a run cannot keep to its limits: its method does not look at them, or nothing does keep to them."""
    if not run.recipe.select.within or run.parent is not None:  # a part selects nothing
        return None
    owner = answerer(run.manager, "search") or answerer(run.manager, "select")
    if owner is not None and not owner.keeps_within:
        return f"{run.recipe.method} does not select within limits; leave select.within out."
    pool, origin = run.subset(), f"of {run.recipe.score.subset}"
    if owner is not None and run.truth is None:  # which searches the space, not the subset
        rng, origin = run.fixed_rng("limits"), "drawn at random"
        pool = [run.space.sample(rng) for _ in range(DRAWN)]
    if not any(map(run.fits, pool)):
        known = {str(w): [c for c in map(cost, pool) if c is not None] for w, cost in run.limits}
        have = ", ".join(f"{text}, where they have {min(c):.4g} to {max(c):.4g}" for text, c in known.items() if c)
        return f"None of the {len(pool)} architectures {origin} is within {have or 'what is known'}."
    return None
