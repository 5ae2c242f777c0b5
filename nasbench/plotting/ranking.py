"""Predicted against true accuracy, and the best of either seen closer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasbench import records
from nasbench.errors import BadInput
from nasbench.metrics import best_rank_at, precision_at
from nasbench.plotting.found import Found, Options, stem
from nasbench.plotting.style import COLOURS, INK, LETTERS, Picture, figure, legend, listed, wrapped

#: What is among the k best by what: colour, marker.
GROUPS = {"best by both": (COLOURS[2], "D"), "best by score": (COLOURS[1], "s"), "best in truth": (COLOURS[0], "^")}


def pictures(found: Found, options: Options) -> Iterator[Picture]:
    """One for each run that kept its scores and knows the truth."""
    for path, record in found.records:
        yield from of_run(found, path, record, options)


def of_run(found: Found, path: str, record: dict[str, Any], options: Options) -> Iterator[Picture]:
    """The picture of one run, if it has what that takes."""
    file = found.beside(path, "scores.json")
    if file.exists() and Path(path).name == "record.json":  # else it is not the run's own folder
        score, true = read(file)
        if len(score) > 1:
            yield draw(stem(path), found.label(path, record), record, score, true, options)


def read(path: Path) -> tuple[list[float], list[float]]:
    """Score and true accuracy of the architectures that have both. Raises BadInput if the file is broken."""
    try:
        columns = json.loads(path.read_text())
        pairs = zip(columns["score"], columns.get("true", []), strict="true" in columns)
        both = [(float(s), float(t)) for s, t in pairs if s is not None]
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise BadInput(f"{path} holds no scores ({error}); run its command again with --force.") from None
    return [s for s, _ in both], [t for _, t in both]


def best(values: Sequence[float], k: int) -> set[int]:
    """Where the k largest values stand; of equal ones the first."""
    return set(sorted(range(len(values)), key=lambda i: -values[i])[:k])


def floor(values: Sequence[float]) -> float:
    """Below this an axis would show a few failures and nothing else: five times the middle half under its end."""
    low, high = np.percentile(values, (25, 75))
    return float(low - 5 * (high - low))


def draw(
    name: str, label: str, record: dict[str, Any], score: list[float], true: list[float], options: Options
) -> Picture:
    """Two panels: every architecture that was ranked, and those that are among the best by score or in truth."""
    k, width = min(options.top, len(score)), options.width
    tau = records.metric(record, "kendall_tau")
    plot = figure(
        width, 0.47 * width + 0.45, wrapped(f"{label}, seed {record['recipe']['seed']}", int(LETTERS * width))
    )
    whole, near = plot.subplots(1, 2)
    by_score, by_truth = best(score, k), best(true, k)
    groups = (by_score & by_truth, by_score - by_truth, by_truth - by_score)
    rest = set(range(len(score))) - by_score - by_truth
    size = 5 if len(score) > 100 else 10
    whole.scatter(*_at(rest, score, true), s=size, color=INK, alpha=0.35, linewidths=0, label="the others")
    for (which, (color, marker)), rows in zip(GROUPS.items(), groups, strict=True):
        for axes, area in ((whole, 9), (near, 16)):
            axes.scatter(*_at(rows, score, true), s=area, color=color, marker=marker, linewidths=0, label=which)
    whole.set_title(f"all {len(score)}: tau {tau['value']:.3f}" if tau and tau["value"] is not None else "all")
    near.set_title(f"the {k} best")
    left, bottom = floor(score), floor(true)
    outside = sum(s < left or t < bottom for s, t in zip(score, true, strict=True))
    if outside:
        # Both ends: the margin that matplotlib leaves is a share of all there is.
        whole.set_xlim(left, max(score) + (max(score) - left) / 20)
        whole.set_ylim(bottom, max(true) + (max(true) - bottom) / 20)
        whole.text(0.03, 0.03, f"{outside} lower", transform=whole.transAxes, fontsize=7)
    for axes in (whole, near):
        axes.set_xlabel("predicted")
        axes.grid()
    whole.set_ylabel("true top-1 (%)")
    legend(plot)
    interval = f", 95 % interval {tau['low']:.3f} to {tau['high']:.3f}" if tau and tau.get("low") is not None else ""
    text = [
        f"{len(score)} architectures of {record['recipe']['space']}: true top-1 against the score that {label}, "
        f"seed {record['recipe']['seed']}, gives them",
        f"Kendall's tau is {tau['value']:.3f}{interval}" if tau and tau["value"] is not None else "",
        f"Of the {k} best by score {precision_at(k, score, true):.0%} are among the {k} truly best; "
        f"the best of them is number {best_rank_at(k, score, true)} in truth",
    ]
    return Picture(f"{name}-ranking", "Predicted and true accuracy", listed(text), plot)


def _at(rows: set[int], *columns: list[float]) -> list[list[float]]:
    return [[column[i] for i in sorted(rows)] for column in columns]
