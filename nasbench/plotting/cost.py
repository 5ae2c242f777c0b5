"""Accuracy against cost, with the Pareto front."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nasbench.plotting.found import Found, Options, place, table_stem
from nasbench.plotting.style import INK, LINES, Picture, cost_axis, figure, legend, listed, looks, short
from nasbench.results.leaderboard import Key

MILLIONS = {
    "params": "parameters (M)",
    "madds": "multiply-adds (M)",
    "average_madds": "multiply-adds, mean over superclasses (M)",
}
TITLES = {
    **MILLIONS,
    "top1": "top-1 (%)",
    "average_top1": "top-1, mean over superclasses (%)",
    "retention": "retention (%)",
    "kendall_tau": "Kendall's tau",
    "regret": "regret (% top-1)",
}
#: More points than this are a cloud, without lines and bars.
CLOUD = 30


class Curve(NamedTuple):
    """What one method reaches in one phase, a point for each of its scenarios, from left to right."""

    method: str
    phase: str
    x: list[float]
    """Means over seeds."""
    y: list[float]
    spread: list[float]
    """Standard deviations of y over seeds; 0 for one."""
    connected: bool = True
    """Whether it has a point for each budget, so that a line means something; superclasses are each their own."""


def curves(rows: list[dict[str, Any]], x: str = "madds", y: str = "top1") -> list[Curve]:
    """One curve for each method and phase among the rows of a leaderboard that have both metrics."""
    found: dict[tuple[str, str], set[tuple[float, float, float]]] = {}
    budgets: dict[tuple[str, str], set[str | None]] = {}
    for row in rows:
        pairs = [(m[x], m[y]) for m in row["metrics"].values() if x in m and y in m]
        if pairs:
            xs, ys = zip(*pairs, strict=True)
            point = statistics.fmean(xs), statistics.fmean(ys), statistics.stdev(ys) if len(ys) > 1 else 0.0
            one = row["method"], row["phase"]
            # Scenarios that have a metric in common, as the superclasses of a budget their means, are one point.
            found.setdefault(one, set()).add(point)
            budgets.setdefault(one, set()).add(row["scenario"].get("budget"))
    made = []
    for (method, phase), points in sorted(found.items()):
        at, value, spread = (list(column) for column in zip(*sorted(points), strict=True))
        made.append(Curve(method, phase, at, value, spread, len(points) <= len(budgets[method, phase])))
    return made


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points than which none is both cheaper and better, from left to right.

    >>> pareto([(1, 5), (2, 4), (3, 7), (3, 6), (1, 5)])
    [(1, 5), (3, 7)]
    """
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points), key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def pictures(found: Found, options: Options) -> Iterator[Picture]:
    """One for each table in which more than one point has both metrics."""
    x, y = options.x, options.y or "top1"
    for name in (x, y):
        found.known(name)
    for key, rows in found.tables.items():
        drawn = curves(rows, x, y)
        if sum(len(curve.x) for curve in drawn) > 1:
            yield draw(key, drawn, x, y, options.width)


def draw(key: Key, found: list[Curve], x: str, y: str, width: float) -> Picture:
    """A method has a colour and a marker, a phase a line; bars are standard deviations over seeds."""
    from matplotlib.lines import Line2D

    methods, phases = (
        list(dict.fromkeys(values)) for values in zip(*((c.method, c.phase) for c in found), strict=True)
    )
    look, label, unit = looks(methods), short(methods), 1e6 if x in MILLIONS else 1.0
    plot = figure(width, 0.62 * width + 0.3, place(key))
    axes = plot.add_subplot(xlabel=TITLES.get(x, x), ylabel=TITLES.get(y, y))
    points = [(at / unit, value) for curve in found for at, value in zip(curve.x, curve.y, strict=True)]
    front = pareto(points)
    for curve in found:
        color, marker = look[curve.method]
        form = style(phases.index(curve.phase))
        if not curve.connected:
            form["linestyle"] = ""
        axes.errorbar(
            [at / unit for at in curve.x],
            curve.y,
            None if len(curve.x) > CLOUD else curve.spread,
            color=color,
            marker=marker,
            markersize=2 if len(curve.x) > CLOUD else 4,
            capsize=1.5,
            elinewidth=0.8,
            **form,
        )
    named = [Line2D([], [], **look[method]._asdict(), linestyle="", label=label[method]) for method in methods]
    if len(phases) > 1:
        named += [Line2D([], [], color=INK, marker="o", label=phase, **style(j)) for j, phase in enumerate(phases)]
    if len(front) > 1 and len(found) > 1:
        axes.plot(*zip(*front, strict=True), color=INK, alpha=0.15, linewidth=5, zorder=0, label="Pareto front")
    cost_axis(axes, [at for at, _ in points])
    axes.grid()
    legend(plot, named)
    best = max(points, key=lambda p: p[1])
    text = [
        f"{TITLES.get(y, y)} against {TITLES.get(x, x)}, {place(key)}",
        *(f"{c.method}{f', {c.phase}' if len(phases) > 1 else ''}: {_range(c, unit)}" for c in found),
        f"The Pareto front has {len(front)} of {len(points)} points and ends at {best[0]:.4g}, {best[1]:.4g}",
    ]
    return Picture(f"{table_stem(key)}-{x}-{y}", f"{TITLES.get(y, y)} against {TITLES.get(x, x)}", listed(text), plot)


def style(phase: int) -> dict[str, Any]:
    """What a phase looks like, by its number."""
    return {"linestyle": LINES[phase % len(LINES)], "fillstyle": "none" if phase else "full"}


def _range(curve: Curve, unit: float) -> str:
    ends = [f"{curve.y[i]:.4g} at {curve.x[i] / unit:.4g}" for i in (0, -1)]
    return f"from {' to '.join(ends)}" if len(curve.x) > 1 else ends[0]
