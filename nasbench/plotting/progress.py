"""Curves: how the loss falls while a supernet trains, and how soon a search finds how much."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from nasbench import records
from nasbench.plotting.found import Found, Options, lines_of, place, table_stem
from nasbench.plotting.style import LINES, Picture, cost_axis, figure, legend, listed, looks, short
from nasbench.results.leaderboard import Key

#: A curve of more points than this is drawn as means.
POINTS = 100
UNITS = {"queries": ("networks looked up", 1.0), "seconds": ("simulated training time (hours)", 3600.0)}

# ---------------------------------------------------------------------- training


def training(found: Found, options: Options) -> Iterator[Picture]:
    """One for each table and kind of stage that has a loss in rows.jsonl, which `--observe jsonl` writes."""
    for key in found.tables:
        stages: dict[str, list[tuple[str, list[float], list[float]]]] = defaultdict(list)
        for path, record in found.of(key):
            if "chosen_for" in record:  # its training stands in the table that it was made for
                continue
            for stage, (steps, losses) in losses_of(found.beside(path, "rows.jsonl")).items():
                stages[stage.rpartition("/")[2].split()[0]].append((found.label(path, record), *means(steps, losses)))
        for stage, runs in stages.items():
            yield draw_training(key, stage, runs, options)


def losses_of(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and losses of each stage of a run; nothing where the file is missing."""
    stages: dict[str, tuple[list[float], list[float]]] = {}
    for row in lines_of(path) if path.exists() else []:
        if row.get("loss") is not None and "step" in row:
            steps, losses = stages.setdefault(row["stage"], ([], []))
            steps.append(row["step"])
            losses.append(row["loss"])
    return stages


def means(x: Sequence[float], y: Sequence[float], most: int = POINTS) -> tuple[list[float], list[float]]:
    """At most so many points: the means of equal parts.

    >>> means([1, 2, 3, 4], [4.0, 2.0, 1.0, 1.0], 2)
    ([1.5, 3.5], [3.0, 1.0])
    """
    n = min(most, len(x))
    cuts = [(len(x) * i // n, len(x) * (i + 1) // n) for i in range(n)]
    return [fmean(x[a:b]) for a, b in cuts], [fmean(y[a:b]) for a, b in cuts]


def draw_training(key: Key, stage: str, runs: list[tuple[str, list[float], list[float]]], options: Options) -> Picture:
    """A line for each run and part of a run, coloured by method."""
    methods = list(dict.fromkeys(label for label, _, _ in runs))
    look, label = looks(methods), short(methods)
    plot = figure(options.width, 0.62 * options.width + 0.3, f"{place(key)}: {stage}")
    axes = plot.add_subplot(xlabel="step", ylabel="loss, mean over subnets")
    for i, (method, x, y) in enumerate(runs):
        first = method not in [m for m, _, _ in runs[:i]]
        line = LINES[methods.index(method) % len(LINES)]
        dot = "." if len(x) == 1 else ""  # a line through one point is invisible
        axes.plot(x, y, line, marker=dot, color=look[method].color, alpha=0.85, label=label[method] if first else None)
    axes.grid()
    legend(plot)
    text = [f"Training loss against the step in the stage {stage}, {place(key)}"]
    text += [f"{method}: from {y[0]:.3g} to {y[-1]:.3g} in {x[-1]:,.0f} steps" for method, x, y in runs]
    return Picture(f"{table_stem(key)}-{stage}-loss", f"Training loss, stage {stage}", listed(text), plot)


# ---------------------------------------------------------------------- anytime

Stairs = tuple[list[float], list[float]]


def anytime(found: Found, options: Options) -> Iterator[Picture]:
    """One for each table with curves of the best so far, against queries and, where it is known, against time."""
    for key in found.tables:
        for unit in UNITS:
            every: dict[str, list[Stairs]] = defaultdict(list)
            for path, record in found.of(key):
                metric = records.metric(record, "anytime_test") or {}
                curve = metric.get("curve") or {}
                if unit in curve:
                    end = [float(metric["n"])] if unit == "queries" else []  # it stays at its best to the end
                    x = [value / UNITS[unit][1] for value in [*curve[unit], *end]]
                    every[found.label(path, record)].append((x, [*curve["value"], *curve["value"][-1:]][: len(x)]))
            if every:
                yield draw_anytime(key, unit, dict(every), options)


def mean_stairs(seeds: list[Stairs]) -> tuple[list[float], list[float], list[float], list[float]]:
    """Where any staircase has a step: x, and the mean, the least and the greatest of what they are at by then.

    It begins where all have begun, and ends where the longest does.

    >>> mean_stairs([([1, 4], [50, 60]), ([1, 2], [40, 80])])
    ([1, 2, 4], [45.0, 65.0, 70.0], [40, 50, 60], [50, 80, 80])
    """
    begin = max(x[0] for x, _ in seeds)
    at = sorted({begin, *(value for x, _ in seeds for value in x if value > begin)})
    levels = [[y[bisect_right(x, value) - 1] for x, y in seeds] for value in at]
    return at, [fmean(level) for level in levels], [min(level) for level in levels], [max(level) for level in levels]


def draw_anytime(key: Key, unit: str, every: dict[str, list[Stairs]], options: Options) -> Picture:
    """The mean over seeds as a staircase, their range as a band."""
    look, label = looks(every), short(every)
    title, _ = UNITS[unit]
    plot = figure(options.width, 0.62 * options.width + 0.3, place(key))
    axes = plot.add_subplot(xlabel=title, ylabel="true top-1 of the best so far (%)")
    text = [f"True top-1 of the best by validation so far against {title}, {place(key)}"]
    for i, (method, seeds) in enumerate(every.items()):
        x, mean, low, high = mean_stairs(seeds)
        color, marker = look[method]
        axes.step(x, mean, where="post", color=color, linestyle=LINES[i % len(LINES)], label=label[method])
        axes.fill_between(x, low, high, step="post", color=color, alpha=0.15, linewidth=0)
        axes.plot(x[-1:], mean[-1:], color=color, marker=marker, linestyle="")
        half = next(at for at, value in zip(x, mean, strict=True) if value >= (mean[0] + mean[-1]) / 2)
        text.append(
            f"{method}, {len(seeds)} seeds: from {mean[0]:.2f} to {mean[-1]:.2f} at {x[-1]:.4g}, "
            f"half the way at {half:.4g}"
        )
    cost_axis(axes, [at for seeds in every.values() for x, _ in seeds for at in x])
    axes.grid()
    legend(plot)
    return Picture(f"{table_stem(key)}-anytime-{unit}", f"The best so far against {title}", listed(text), plot)
