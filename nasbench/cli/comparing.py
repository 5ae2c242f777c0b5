"""Verbs that make tables of records: leaderboard, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasbench.cli.options import Folders, Plugins, app, examples


@app.command(
    epilog=examples(
        "nasbench leaderboard",
        "nasbench leaderboard --runs runs --runs leaderboards    # yours among those that are published",
        "nasbench leaderboard --metric spearman --metric precision_at_10",
        "nasbench leaderboard --runs runs --out leaderboards",
    )
)
def leaderboard(
    runs: Folders = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write tables and records here. [default: print them]")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 if the tables in --out are not what the records there give.")
    ] = False,
    format: Annotated[str, typer.Option(metavar="NAME", help="md, csv or latex, when printing.")] = "md",
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A column more, when printing. Repeatable.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Make the leaderboards from records.

    A row is mean, spread and interval over seeds, with the trivial baseline beside them.
    """
    from nasbench.results import leaderboard as boards
    from nasbench.results import reported

    if check:
        out = out or Path("leaderboards")
        for path in (stale := boards.stale(out)):
            typer.echo(
                f"{path} is not what the records give; run `nasbench leaderboard --runs {out} --out {out}`.",
                err=True,
            )
        raise typer.Exit(int(bool(stale)))
    folders = runs or [Path("runs")]
    if out is None:
        typer.echo(boards.render_all(boards.read_all(*folders), format, reported.read_all(), metric or ()), nl=False)
        return
    for path in dict.fromkeys(path for folder in folders for path in boards.publish(folder, out)):
        typer.echo(f"wrote {path}")


@app.command(
    epilog=examples(
        "nasbench compare fairnas+calr+ms fairnas", "nasbench compare spos+ms spos --runs leaderboards --metric top1"
    )
)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A method and modifiers, as a leaderboard names its row.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another, in the same table.")],
    runs: Folders = None,
    metric: Annotated[str, typer.Option(metavar="NAME", help="What to compare: kendall_tau, top1.")] = "kendall_tau",
    plugin: Plugins = None,
) -> None:
    """Compare two methods, paired by seed.

    A difference whose 95 % interval contains 0 is not called one.
    """
    from nasbench import show
    from nasbench.results.comparison import compare as compared
    from nasbench.results.leaderboard import read_all

    for one in compared(read_all(*(runs or [Path("runs")])), a, b, metric):
        show.comparison(one)
