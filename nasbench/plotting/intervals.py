"""Methods side by side with 95 % intervals: each by itself, or against one of them, paired by seed."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any, NamedTuple

from nasbench.errors import BadInput, unknown
from nasbench.metrics import mean_interval
from nasbench.plotting.cost import MILLIONS, TITLES
from nasbench.plotting.found import Found, Options, place, table_stem
from nasbench.plotting.style import COLOURS, INK, LINE, Picture, figure, legend, listed, short, wrapped
from nasbench.results.comparison import compare
from nasbench.results.leaderboard import Key


class Bar(NamedTuple):
    """A row of the picture."""

    label: str
    values: list[float]
    """One for each seed."""

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return fmean(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % Student interval of the mean; None for fewer than three seeds."""
        return mean_interval(self.values)


def pictures(found: Found, options: Options) -> Iterator[Picture]:
    """One for each table and scenario with two methods or more; against one of them, its differences."""
    if options.y:
        found.known(options.y)
    if options.against:
        yield from differences(found, options)
        return
    for key, rows in found.tables.items():
        metric = options.y or default(rows)
        several = len({row["phase"] for row in rows}) > 1
        places: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            scenario = [*row["scenario"].values(), *([row["phase"]] if several else [])]
            places.setdefault(" ".join(scenario), []).append(row)
        for name, there in places.items():
            values = [(row["method"], [m[metric] for m in row["metrics"].values() if metric in m]) for row in there]
            bars = [Bar(method, seeds) for method, seeds in values if seeds]
            if len(bars) > 1:
                trivial = [m["params_tau"] for row in there for m in row["metrics"].values() if "params_tau" in m]
                baseline = fmean(trivial) if trivial and metric == "kendall_tau" else None
                yield draw(key, name, metric, bars, options, baseline)


def default(rows: list[dict[str, Any]]) -> str:
    """What methods are judged by in a table."""
    return "kendall_tau" if any(row["values"]["kendall_tau"] for row in rows) else "top1"


def differences(found: Found, options: Options) -> Iterator[Picture]:
    """Each method minus the one they are compared to, seed by seed, in every table that has both."""
    methods: set[str] = {row["method"] for rows in found.tables.values() for row in rows}
    if options.against not in methods:
        raise unknown("method among these records", str(options.against), methods)
    places: dict[tuple[Key, str, str], list[Bar]] = {}
    for key, rows in found.tables.items():
        metric, here = options.y or default(rows), {row["method"] for row in rows}
        for method in sorted(here - {options.against}) if options.against in here else []:
            try:
                compared = compare(found.of(key), method, options.against, metric)
            except BadInput:  # no seed in common
                continue
            for one in compared:
                if one.key == key:  # else it is what the same runs say of another dataset
                    places.setdefault((key, one.scenario, metric), []).append(Bar(method, one.differences))
    for (key, scenario, metric), bars in places.items():
        yield draw(key, scenario, metric, bars, options)


def draw(
    key: Key, scenario: str, metric: str, bars: list[Bar], options: Options, baseline: float | None = None
) -> Picture:
    """A row for each method, the highest first: mean and interval as a diamond with a bar, seeds as strokes."""
    unit = 1e6 if metric in MILLIONS else 1.0
    name, label = TITLES.get(metric, metric), short(bar.label for bar in bars)
    bars = sorted(bars, key=lambda bar: -bar.mean)
    labels = [f"{wrapped(label[bar.label], int(options.width * 7))} (n = {len(bar.values)})" for bar in bars]
    lines = sum(1 + each.count("\n") for each in labels)
    title = "\n".join(filter(None, [place(key), scenario]))
    plot = figure(options.width, 0.75 + 0.2 * len(bars) + LINE * (lines - len(bars)), title)
    axes = plot.add_subplot(xlabel=f"{name}, minus {options.against}" if options.against else name)
    for at, bar in enumerate(bars):
        values, mean = [value / unit for value in bar.values], bar.mean / unit
        if bar.interval:
            low, high = (end / unit for end in bar.interval)
            axes.errorbar(mean, at, xerr=[[mean - low], [high - mean]], color=COLOURS[0], capsize=2)
        seeds = axes.plot(values, [at + 0.22] * len(values), "|", color=COLOURS[1], markersize=4)
        means = axes.plot(mean, at, "D", color=COLOURS[0], markersize=3.5)
    means[0].set_label("mean, 95 % interval")
    seeds[0].set_label("seeds")
    if options.against:
        axes.axvline(0, color=INK, linewidth=0.8)
    elif baseline is not None:
        axes.axvline(baseline, color=INK, linewidth=0.8, linestyle="--", label="by parameter count")
    axes.set_yticks(range(len(bars)), labels)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.grid(axis="x")
    legend(plot)
    text = [f"{name}{f' minus that of {options.against}' if options.against else ''}, {place(key)} {scenario}".strip()]
    if baseline is not None:
        text.append(f"The parameter count, which costs no training, is at {baseline:.4g}")
    for bar in bars:
        interval = (
            f", 95 % interval {bar.interval[0] / unit:.4g} to {bar.interval[1] / unit:.4g}" if bar.interval else ""
        )
        text.append(f"{bar.label}: {bar.mean / unit:.4g}{interval}, {len(bar.values)} seeds")
    where = "-".join(filter(None, [table_stem(key), scenario.replace(" ", "-").replace("/", "_"), metric]))
    against = f"-against-{options.against}" if options.against else ""
    return Picture(f"{where}-intervals{against}", f"{name} with intervals", listed(text), plot)
