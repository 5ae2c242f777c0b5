"""Verbs that make pictures and pages of records: plot, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasbench.cli.options import Plugins, Runs, app, examples


@app.command(
    epilog=examples(
        "nasbench plot --runs leaderboards --out leaderboards",
        "nasbench plot ranking --runs runs --format pdf --width 7",
        "nasbench plot intervals --against spos --metric kendall_tau",
    )
)
def plot(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="cost, intervals, ranking, anytime, training or networks.")
    ] = "cost",
    runs: Runs = Path("runs"),
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the pictures go.")] = Path("plots"),
    x: Annotated[str, typer.Option(metavar="NAME", help="cost: what to draw against, madds or params.")] = "madds",
    y: Annotated[
        str | None,
        typer.Option(
            "--metric", "--y", metavar="NAME", help="cost, intervals: what to draw. [default: kendall_tau or top1]"
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="LABEL", help="intervals: differences from this method, paired by seed.")
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", help="ranking: how many of the best to see closer.")] = 10,
    width: Annotated[float, typer.Option(metavar="INCHES", help="3.4 is a printed column, 7 a page.")] = 3.4,
    format: Annotated[str, typer.Option(metavar="NAME", help="svg, png or pdf.")] = "svg",
    plugin: Plugins = None,
) -> None:
    """Draw what the records say.

    cost: accuracy against cost with the Pareto front. intervals: methods with their spread over seeds. ranking:
    predicted against true accuracy. anytime: the best so far. training: the loss, where a run had --observe jsonl.
    networks: what was chosen.
    """
    from nasbench.plotting import Options
    from nasbench.plotting import plot as drawn

    for path in drawn(kind, runs, out, Options(x, y, top, against, width), format):
        typer.echo(f"wrote {path}")


@app.command(epilog=examples("nasbench report runs", "nasbench report leaderboards --out leaderboards.html"))
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the records are.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("report.html"),
    plugin: Plugins = None,
) -> None:
    """Write one page of all records in a folder.

    It has the leaderboards as tables to sort, the pictures, and every run with the command that repeats it. It is a
    single file that needs no network.
    """
    from nasbench.results.report import write

    write(folder, out)
    typer.echo(f"wrote {out}")
