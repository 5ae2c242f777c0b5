"""Pictures made of records: `nasbench plot`. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from nasbench.errors import BadInput, unknown
from nasbench.files import write_atomic
from nasbench.plotting import architecture, cost, intervals, progress, ranking
from nasbench.plotting.found import Found, Options
from nasbench.plotting.style import FORMATS, Picture, rendered, styled

#: What each kind of picture takes: a function of the records, and what they must have.
KINDS: dict[str, tuple[Callable[[Found, Options], Iterator[Picture]], str]] = {
    "cost": (cost.pictures, "a table with {y} and {x} at two points or more"),
    "intervals": (intervals.pictures, "a table with two methods or more that have the metric"),
    "ranking": (ranking.pictures, "a run's folder with its scores.json and ground truth to rank against"),
    "anytime": (progress.anytime, "a record with the metric anytime_test and its curve"),
    "training": (progress.training, "a run's folder with rows.jsonl: run with --observe jsonl"),
    "networks": (architecture.pictures, "a record"),
}


def plot(kind: str, runs: Path, out: Path, options: Options | None = None, format: str = "svg") -> list[Path]:
    """Draw every picture of a kind that the records below `runs` give, into `out`; says which files were written.

    Raises BadInput for a kind, format, size or metric that there is not, and if there is nothing to draw.
    """
    options = options or Options()
    if kind not in KINDS:
        raise unknown("kind of picture", kind, KINDS)
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if not 2 <= options.width <= 20:
        raise BadInput(f"A picture of {options.width:g} inches cannot be read; expected a --width from 2 to 20.")
    if options.top < 1:
        raise BadInput(f"There are no {options.top} best architectures; expected a --top of 1 or more.")
    make, needs = KINDS[kind]
    written = []
    with styled():
        for picture in make(Found(runs), options):
            path = out / f"{picture.name}.{format}"
            write_atomic(path, rendered(picture, format))
            written.append(path)
    if not written:
        needs = needs.format(x=options.x, y=options.y or "top1")
        raise BadInput(f"There is nothing to draw below {runs}: {kind} takes {needs}.")
    return written
