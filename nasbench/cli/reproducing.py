"""The verb that puts what was measured beside what a paper prints: reproduce."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from nasbench.cli.options import Plugins, Runs, app, examples
from nasbench.cli.running import carry_out, check_engine
from nasbench.errors import BadInput, unknown


@app.command(
    epilog=examples(
        "nasbench reproduce --list",
        "nasbench reproduce dynamic-supernet:E --dry-run",
        "nasbench reproduce dance:2 --preset cpu --dataset cifar10=cifar10-jpeg --out table.md",
    )
)
def reproduce(
    tables: Annotated[
        list[str] | None,
        typer.Argument(metavar="PAPER:TABLE", help="A table, or PAPER for all of its; a folder may stand for PAPER."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show how each table stands, and stop.")] = False,
    preset: Annotated[str, typer.Option(metavar="NAME", help="paper, cpu (smaller) or quick (offline).")] = "cpu",
    dataset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=OTHER", help="Train on another dataset: cifar10=cifar10-jpeg. Repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Run the seeds 0 to N-1.")] = 3,
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Write it here, and a .csv beside it; a folder holds several tables."),
    ] = None,
    engine: Annotated[str, typer.Option(metavar="NAME", help="local, ray or slurm.")] = "local",
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Runs at once, locally. [default: one a core, or one a GPU]")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    plugin: Plugins = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Run nothing; show what the records say.")] = False,
) -> None:
    """Run a paper's table, and show it beside what is printed.

    What has a record below --runs is not run again. A number that cannot be run says why: data, description or compute.
    """
    from nasbench.recipe import PRESETS

    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    if seeds < 1:
        raise BadInput(f"--seeds {seeds} does not fit: expected 1 or more.")
    check_engine(engine, workers, device)
    others = dict(_pair(text) for text in dataset or [])
    if not tables and not list_:
        raise BadInput("No table is named; give one like dance:1, or --list to see them all.")
    from nasbench.files import write_atomic
    from nasbench.results import reproduce as measuring
    from nasbench.results import reproduced
    from nasbench.results.papers import select
    from nasbench.results.reported import installed

    chosen = select(tables or installed())
    measuring.check_datasets(chosen, preset, others)
    one_file = out is not None and out.suffix == ".md"
    if one_file and len(chosen) > 1:
        raise BadInput(f"--out {out} is one file for {len(chosen)} tables; name a folder, or one table.")

    def measured() -> list[list[measuring.Outcome]]:
        found = measuring.read_records(runs)
        return [measuring.measure(printed, preset, others, found) for printed in chosen]

    every, failed = measured(), False
    if list_:
        typer.echo(reproduced.overview(list(zip(chosen, every, strict=True))), nl=False)
        return
    jobs = [] if dry_run else measuring.plan([one for found in every for one in found], seeds, runs, device)
    if jobs:
        failed = carry_out(jobs, runs, engine, workers, device, dry_run=False)
        every = measured()
    for printed, found in zip(chosen, every, strict=True):
        if out is not None and not one_file and not any(one.values for one in found):
            typer.echo(f"{printed.name}: nothing is measured")
            continue
        names = [word for name, other in others.items() for word in ("--dataset", f"{name}={other}")]
        words = ["nasbench", "reproduce", printed.name, "--preset", preset, *names, "--runs", str(runs)]
        command = shlex.join([*words, *(["--dry-run"] if dry_run else [])])
        path = out if out is None or one_file else out / f"{Path(printed.name).name.replace(':', '-')}-{preset}.md"
        text = reproduced.page(printed, found, preset, command, path.parent if path else Path())
        if path is None:
            typer.echo(text)
            continue
        write_atomic(path, text)
        write_atomic(path.with_suffix(".csv"), reproduced.csv_text(found, preset))
        typer.echo(f"wrote {path} and {path.with_suffix('.csv')}")
    raise typer.Exit(int(failed))


def _pair(text: str) -> tuple[str, str]:
    name, equals, other = text.partition("=")
    if not (name and equals and other):
        raise BadInput(f"Cannot read --dataset {text!r}; write it like --dataset cifar10=cifar10-jpeg.")
    return name, other
