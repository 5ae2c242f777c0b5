"""Two rows of a leaderboard against each other, paired by seed."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from nasbench.errors import BadInput, unknown
from nasbench.metrics import mean_interval
from nasbench.plugins import build_terms, format_label
from nasbench.results.differences import ENOUGH, LEVEL, alike, paired_p
from nasbench.results.leaderboard import Key, everywhere, tables

#: Metrics of which more, and of which less, is better; of any other only higher and lower can be said.
MORE = {"kendall_tau", "kendall_tau_reduced", "spearman", "precision_at_10", "top1", "accuracy_density"}
LESS = {"best_rank_at_10", "regret", "params", "madds"}


class Comparison(NamedTuple):
    """Two rows of one table, paired by seed."""

    key: Key
    scenario: str
    """The scenario, and the phase where there are several; empty where a run chooses once."""
    a: str
    b: str
    metric: str
    pairs: dict[int, tuple[float, float]]
    """The values of both, by seed."""
    unpaired: list[int]
    """Seeds that only one of them has a value for."""

    @property
    def differences(self) -> list[float]:
        """The first minus the second, seed by seed."""
        return [a - b for a, b in self.pairs.values()]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % Student interval of the mean difference; None for fewer than three, and where they are all alike."""
        return None if alike(self.differences) else mean_interval(self.differences)

    @property
    def verdict(self) -> str:
        """What can be said of the first against the second."""
        if len(self.pairs) < ENOUGH:
            return "Fewer than three seeds in common: no verdict."
        if paired_p(self.differences) >= LEVEL:
            return f"{self.a} and {self.b} cannot be told apart."
        higher = sum(self.differences) > 0
        if self.metric in MORE | LESS:
            return f"{self.a} is {'better' if higher == (self.metric in MORE) else 'worse'} than {self.b}."
        return f"{self.a} is {'higher' if higher else 'lower'} than {self.b}."


def compare(found: list[tuple[str, dict[str, Any]]], a: str, b: str, name: str = "kendall_tau") -> list[Comparison]:
    """Two labels in every table that has both; raises BadInput if there is nothing to compare."""
    every: dict[tuple[Key, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for key, rows in tables(everywhere(found)).items():
        several = len({row["phase"] for row in rows}) > 1
        for row in rows:
            scenario = " ".join([*row["scenario"].values(), *([row["phase"]] if several else [])])
            every[key, scenario][row["method"]] = row
    known = {label for rows in every.values() for label in rows}
    a, b = _spelled(a, known), _spelled(b, known)
    both = {place: (rows[a], rows[b]) for place, rows in every.items() if a in rows and b in rows}
    if not both:
        raise BadInput(
            f"{a} and {b} stand in no table together; run them with the same space, dataset, target, preset and subset."
        )
    names = {name for pair in both.values() for row in pair for metrics in row["metrics"].values() for name in metrics}
    if name not in names:
        raise unknown("metric", name, names)
    compared = []
    for (key, scenario), pair in both.items():
        x, y = ({seed: m[name] for seed, m in row["metrics"].items() if name in m} for row in pair)
        if pairs := {seed: (x[seed], y[seed]) for seed in sorted(x.keys() & y.keys())}:
            compared.append(Comparison(key, scenario, a, b, name, pairs, sorted(x.keys() ^ y.keys())))
    if not compared:
        raise BadInput(f"{a} and {b} have no seed in common that has a {name}; run both with the same seeds.")
    return compared


def _spelled(label: str, known: set[str]) -> str:
    """The label of a row, however its terms are ordered and its options written."""
    if label in known:
        return label
    try:
        spelled = format_label(build_terms(label, {}))
    except BadInput:
        spelled = label
    if spelled not in known:
        raise unknown("method among these records", label, known)
    return spelled
