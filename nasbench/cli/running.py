"""Verbs that run something, or take from what was run: run, sweep, specialize, export, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nasbench.cli.options import (
    METHOD,
    SPACE,
    Config,
    Dataset,
    Json,
    Plugins,
    Preset,
    Runs,
    Sets,
    Target,
    app,
    examples,
)
from nasbench.errors import BadInput, unknown

if TYPE_CHECKING:
    from nasbench.sweeps.sweep import Job


@app.command(
    epilog=examples(
        "nasbench run -m fairnas+calr -s nb201",
        "nasbench run -m spos -s nb201 --dataset cifar10-jpeg --preset cpu --seeds 3",
        "nasbench run --config my.yaml",
        "torchrun --nproc-per-node 2 -m nasbench run -m spos -s nb201 --preset paper",
        "nasbench run -m spos -s nb201 --observe jsonl --observe 'tensorboard[every=50]'",
    )
)
def run(
    method: Annotated[str | None, METHOD] = None,
    space: Annotated[str | None, SPACE] = None,
    dataset: Dataset = None,
    target: Target = None,
    preset: Preset = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Run seeds 0 to N-1.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="K", help="Run this one seed. [default: 0]")] = None,
    sets: Sets = None,
    config: Config = None,
    plugin: Plugins = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    runs: Runs = Path("runs"),
    again: Annotated[
        bool,
        typer.Option(
            "--retrain", help="Also train what was chosen from scratch, by the preset's recipe: METHOD+retrain."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Start over, even if the run is finished.")] = False,
    observe: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Report to jsonl, tensorboard, wandb or mlflow as well. Repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
) -> None:
    """Run a method on a search space, once per seed.

    The same command goes on after a crash, and shows the record of a run that is finished.
    """
    from nasbench import recipe as recipes

    if seed is not None and seeds is not None:
        raise BadInput(f"--seeds {seeds} and --seed {seed} exclude each other; give one of them.")
    if seeds is not None and seeds < 1:
        raise BadInput(f"--seeds {seeds} does not fit: expected 1 or more.")
    if seed is not None and seed < 0:
        raise BadInput(f"--seed {seed} does not fit: expected 0 or more.")
    settings = recipes.read_config(config) if config else {}
    label, space = named("method", method, settings), named("space", space, settings)
    label = f"{label} + retrain" if again else label  # the one modifier with a flag of its own
    plan = [
        recipes.resolve(
            label,
            space,
            dataset=dataset,
            target=target,
            preset=preset,
            seed=s,
            device=device,
            config=settings,
            sets=recipes.parse_set(sets or []),
        )
        for s in (range(seeds) if seeds else [seed])
    ]
    from nasbench import home, show
    from nasbench.distributed import rank
    from nasbench.harness import execute, prepare
    from nasbench.plugins import build_observers

    watching = observe or [] if rank() == 0 else []
    if dry_run:
        if how := home.missing().get(plan[0].dataset):
            raise BadInput(f"A plan needs the images of {plan[0].dataset}, which are not at hand: {how}.")
        for i, one in enumerate(plan):
            prepared, _ = prepare(one, runs, build_observers(watching))
            show.plan(prepared, announce=i == 0)
        return
    done: list[dict[str, Any]] = []
    for one in plan:
        with show.Terminal(announce=not done) as terminal:
            record, path = execute(one, runs, observers=[terminal, *build_observers(watching)], force=force)
        show.record(record, path, finished_before=not terminal.started)
        done.append(record)
    if len(done) > 1:
        show.over_seeds(done)


def named(name: str, given: str | None, config: dict[str, Any]) -> str:
    """The method or the space of a run: the flag's, else the config's."""
    found = config.get(name) if given is None else given
    if not isinstance(found, str):
        raise BadInput(f"A run needs a {name}: give --{name}, or a --config that names it (`{name}: NAME`).")
    return found


@app.command(
    epilog=examples("nasbench sweep sweep.yaml --dry-run", "nasbench sweep sweep.yaml --workers 2", "cat sweep.yaml")
    + """
  methods: [spos, fairnas, fairnas+calr+ms]
  spaces: [nb201]
  seeds: 3                       # 0, 1, 2
  presets: [quick]
  set: {train.epochs: 30}
  exclude: [{method: spos, space: nb201}]"""
)
def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML: methods, spaces, datasets, presets, seeds, set, exclude.")
    ],
    runs: Runs = Path("runs"),
    engine: Annotated[str, typer.Option(metavar="NAME", help="local, ray or slurm.")] = "local",
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Runs at once, locally. [default: one a core, or one a GPU]")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    plugin: Plugins = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the matrix, refusals and time, and stop.")] = False,
) -> None:
    """Run every method on every space, several runs at a time.

    The same command goes on where it was. A run that fails does not stop the others; the exit code is then 1, and 2
    where every run is refused.
    """
    check_engine(engine, workers, device)
    from nasbench.sweeps import sweep as sweeps

    jobs = sweeps.plan(sweeps.read(file), runs, device)
    failed = carry_out(jobs, runs, engine, workers, device, dry_run)
    raise typer.Exit(2 if all(job.state == "refused" for job in jobs) else int(failed))


def check_engine(engine: str, workers: int | None, device: str) -> None:
    """Refuse an engine that there is not, a number of runs at once that is none, and a GPU by its number."""
    if device.startswith("cuda:"):  # each run is dealt one GPU, and sees that alone
        raise BadInput(
            f"--device {device} is for one run, and several are dealt the GPUs in turn; use --device cuda, and "
            f"CUDA_VISIBLE_DEVICES={device.removeprefix('cuda:')} for that GPU alone."
        )
    if workers is not None and workers < 1:
        raise BadInput(f"--workers {workers} does not fit: expected 1 or more.")
    from nasbench.sweeps.engines import ENGINES

    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)


def carry_out(jobs: list[Job], runs: Path, engine: str, workers: int | None, device: str, dry_run: bool) -> bool:
    """Do what waits and follow it in a table, or show that table alone. Whether a run failed."""
    from nasbench.files import make_folder
    from nasbench.machine import cores, gpus
    from nasbench.sweeps import engines, sweep
    from nasbench.sweeps.sweep_table import SweepTable

    threads = max((job.recipe.engine.threads or 1 for job in jobs if job.recipe), default=1)
    count = gpus() if device != "cpu" else 0
    slots = workers or count or max(1, cores() // threads)
    table = SweepTable(jobs, slots if engine == "local" else None)
    if dry_run:
        with table.console.status("") as status:
            sweep.try_out(jobs, lambda job: status.update(f"timing a few steps of {job.label} on {job.where}"))
        table.show()
        return False
    make_folder(runs)
    with table:
        sweep.execute(jobs, engines.make(engine, runs, slots, count), look=table.look)
    return any(job.state == "failed" for job in jobs)


@app.command(
    epilog=examples(
        "nasbench specialize runs/dance-resnet18-digits-quick-s0-1a2b3c4d --budget keep=0.35",
        "nasbench specialize 1a2b3c4d --superclass animals --budget madds=300M --json",
    )
)
def specialize(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A record's path, or the beginning of a run's name or id.")],
    budget: Annotated[
        str | None, typer.Option(metavar="LIMIT", help="keep=0.4, madds=300M or params=2.5M, as the method can.")
    ] = None,
    superclass: Annotated[str | None, typer.Option(metavar="NAME", help="The group of classes it is for.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the network goes. [default: below the run's folder]")
    ] = None,
    runs: Runs = Path("runs"),
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Make a network for another budget from a finished run."""
    from nasbench.budget import Budget

    limit = str(Budget.parse(budget)) if budget is not None else None
    scenario = {k: v for k, v in {"budget": limit, "superclass": superclass}.items() if v is not None}
    if not scenario:
        raise BadInput("Nothing to specialize for; give --budget, for example --budget keep=0.4, or --superclass.")
    from nasbench import records, show
    from nasbench.files import dump_json
    from nasbench.results.specialize import specialize as make

    answer, folder = make(records.locate(runs, run), scenario, out)
    if json:
        typer.echo(dump_json(answer), nl=False)
    else:
        show.specialized(answer, folder)


@app.command(
    epilog=examples(
        "nasbench export 1a2b3c4d --onnx",
        "nasbench export runs/eas-mobilenetv3-digits-quick-s0-1a2b3c4d --choice 2 --out network",
    )
)
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A record's path, or the beginning of a run's name or id.")],
    choice: Annotated[
        int | None, typer.Option(metavar="N", help="Which of the run's choices, from 0. [default: its only one]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the files go. [default: exported/N in the run's folder]")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX as well (extra `export`).")] = False,
    runs: Runs = Path("runs"),
    plugin: Plugins = None,
) -> None:
    """Write the chosen network for use without nasbench.

    A plain Python file that imports torch alone, its weights, and torch.export's form; each is compared with the
    network, and the exit code is 1 if one differs. Without a trained network the weights are an initialisation.
    """
    from nasbench import records, show
    from nasbench.results import export as exports

    path = records.locate(runs, run)
    index = exports.choice_of(records.read(path), choice)
    chosen = exports.chosen(path, index)
    written = exports.export(chosen, out or path.parent / "exported" / str(index), onnx)
    show.exported(chosen, written)
    raise typer.Exit(int(not all(one.equal for one in written)))


@app.command(epilog=examples("nasbench verify leaderboards/records/fairnas-nb201-cifar10-jpeg-cpu-s0-422ce3b8.json"))
def verify(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="A record's path, or its run's name or id.")],
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Where the new run goes.")] = Path("verified"),
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N. [default: cuda for a GPU's record, else cpu]"),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Run a record's recipe again and compare.

    The exit code is 1 if a result differs. Equality is to be expected on the same machine with the same versions;
    elsewhere, numbers that are close.
    """
    from nasbench import records, show
    from nasbench.results.verify import verify as again

    with show.Terminal() as terminal:
        found = again(records.locate(Path("runs"), record), runs, [terminal], device)
    for difference in found:
        typer.echo(difference)
    typer.echo(f"{len(found)} differences" if found else "the same")
    raise typer.Exit(int(bool(found)))
