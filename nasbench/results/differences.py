"""Which differences between the rows of a table hold: paired by seed, corrected for how many pairs there are."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy import stats

LEVEL = 0.05
#: Seeds that two rows must have in common for a verdict, as an interval needs them.
ENOUGH = 3
METRICS = {"kendall_tau": "Kendall's tau", "top1": "top-1"}


class Difference(NamedTuple):
    """Two rows with the same scenario and phase, and `ENOUGH` seeds in common."""

    where: str
    """Scenario and phase."""
    above: str
    below: str
    """The labels, the higher mean first."""
    metric: str
    p: float
    """Of `paired_p` on the differences, as if it were the only one."""


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p of Student's t-test that the mean of at least two paired differences is 0.

    Differences without spread, as coarse accuracies have by chance, leave t undefined: then of the sign test, which
    is exact. That all n have one sign has the probability 2 ** (1 - n).

    >>> round(paired_p([0.1, 0.2, 0.3]), 4)
    0.0742
    >>> paired_p([0.1, 0.1]), paired_p([0.0, 0.0])
    (0.5, 1.0)
    """
    if alike(differences):
        return 2.0 ** (1 - len(differences)) if differences[0] else 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def alike(differences: Sequence[float]) -> bool:
    """Whether they are the same but for rounding."""
    return max(differences) - min(differences) <= 1e-9 * max(map(abs, differences))


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted so that, of all that are below a level, any is a chance finding with that probability at most.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p), 0.0
    for done, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - done) * p[i]))
        adjusted[i] = highest
    return adjusted


def pairs(rows: Sequence[dict[str, Any]]) -> list[Difference]:
    """Every pair of rows of a leaderboard that can be compared, in the table's order."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[" ".join([*row["scenario"].values(), row["phase"]])].append(row)
    found = []
    for where, group in groups.items():
        for a, b in itertools.combinations(group, 2):
            both = [(a["metrics"][s], b["metrics"][s]) for s in sorted(a["metrics"].keys() & b["metrics"].keys())]
            for name in METRICS:
                values = [(x[name], y[name]) for x, y in both if name in x and name in y]
                if len(values) >= ENOUGH:
                    differences = [x - y for x, y in values]
                    labels = (a["method"], b["method"])
                    above, below = labels if statistics.fmean(differences) >= 0 else labels[::-1]
                    found.append(Difference(where, above, below, name, paired_p(differences)))
                    break
    return found


def note(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What is said under a table; nothing if it has a single row."""
    found = pairs(rows)
    if not found:
        return (
            ["No two rows have three seeds in common: nothing is said of their differences."] if len(rows) > 1 else []
        )
    count = f"{len(found)} pairs" if len(found) > 1 else "1 pair"
    how = f"paired by seed, t-test with Holm's correction for {count}, {LEVEL:.0%}".replace("%", " %")
    held = [one for one, p in zip(found, holm([one.p for one in found]), strict=True) if p < LEVEL]
    names = " or ".join(METRICS[name] for name in METRICS if any(one.metric == name for one in found))
    if not held:
        return [f"No difference in {names} between two rows holds ({how})."]
    several = len({one.where for one in found}) > 1
    below: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in held:
        below[one.where if several else "", one.above].append(one.below)
    said = [
        f"{above} above {', '.join(names_)}{f' ({where})' if where else ''}" for (where, above), names_ in below.items()
    ]
    return [f"Differences in {names} that hold ({how}): {'; '.join(said)}. No other does."]
