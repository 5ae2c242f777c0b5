"""Pictures of accuracy against cost, made of records: `nasbench plot`. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

import io
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from nasbench.errors import BadInput, unknown
from nasbench.files import write_atomic
from nasbench.leaderboard import Key, file_name, read_all, tables

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
}
#: Told apart without colour too.
MARKERS = "osD^vPX*"


class Curve(NamedTuple):
    """What one method reaches in one phase, a point for each of its scenarios, from left to right."""

    method: str
    phase: str
    x: list[float]
    """Means over seeds."""
    y: list[float]
    spread: list[float]
    """Standard deviations of y over seeds; 0 for one."""


def curves(rows: list[dict[str, Any]], x: str = "madds", y: str = "top1") -> list[Curve]:
    """One curve for each method and phase among the rows of a leaderboard that have both metrics."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for row in rows:
        pairs = [(m[x], m[y]) for m in row["metrics"].values() if x in m and y in m]
        if pairs:
            xs, ys = zip(*pairs, strict=True)
            point = statistics.fmean(xs), statistics.fmean(ys), statistics.stdev(ys) if len(ys) > 1 else 0.0
            found.setdefault((row["method"], row["phase"]), []).append(point)
    # Scenarios that have a metric in common, as the superclasses of a budget their means, are one point.
    return [Curve(*key, *map(list, zip(*sorted(set(points)), strict=True))) for key, points in sorted(found.items())]


def draw(key: Key, found: list[Curve], x: str, y: str) -> bytes:
    """Curves as SVG, the same bytes for the same curves. A method has a colour, a phase a line."""
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ImportError:
        raise BadInput("A plot needs matplotlib; install it with pip install 'nasbench[plot]'.") from None
    space, _, dataset, preset, _ = key
    methods, phases = (
        list(dict.fromkeys(values)) for values in zip(*((c.method, c.phase) for c in found), strict=True)
    )
    with matplotlib.style.context(["tableau-colorblind10", {"svg.hashsalt": "nasbench", "svg.fonttype": "none"}]):
        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.add_subplot(xscale="log", xlabel=TITLES.get(x, x), ylabel=TITLES.get(y, y))
        axes.set_title(f"{space} on {dataset}, preset {preset}", fontsize="medium")
        for curve in found:
            i, j = methods.index(curve.method), phases.index(curve.phase)
            many = len(curve.x) > 30  # a cloud
            style = "" if many else ("-", "--", ":", "-.")[j % 4]
            at = [value / 1e6 for value in curve.x] if x in MILLIONS else curve.x
            label = f"{curve.method}, {curve.phase}" if len(phases) > 1 else curve.method
            axes.errorbar(
                at,
                curve.y,
                None if many else curve.spread,
                color=f"C{i}",
                marker=MARKERS[i % len(MARKERS)],
                linestyle=style,
                label=label,
                markersize=3 if many else 5,
                capsize=2,
                fillstyle="none" if j else "full",
            )
        axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", fontsize="small", ncols=len(methods) if len(phases) > 1 else 2)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def plot(runs: Path, out: Path, x: str = "madds", y: str = "top1") -> list[Path]:
    """Draw every table whose rows are at two or more scenarios, into `out`. Says which files were written.

    Raises BadInput for a metric that no record has, or if there is nothing to draw.
    """
    every = tables(read_all(runs))
    known = {name for rows in every.values() for row in rows for m in row["metrics"].values() for name in m}
    for name in (x, y):
        if name not in known:
            raise unknown("metric", name, known)
    written = []
    for key, rows in every.items():
        found = curves(rows, x, y)
        if any(len(curve.x) > 1 for curve in found):
            path = out / f"{file_name(key).removesuffix('.md')}-{x}-{y}.svg"
            write_atomic(path, draw(key, found, x, y))
            written.append(path)
    if not written:
        raise BadInput(f"No method below {runs} has a {y} at two scenarios, as a plot against {x} needs.")
    return written
