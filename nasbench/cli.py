"""The command line: one thin function per verb. What is heavy is imported inside, so that help is instant."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from nasbench.errors import BadInput, unknown


def examples(*commands: str) -> str:
    """The end of a help text; \\b keeps its lines apart."""
    return "\n".join(["\b", "Examples:", *(f"  {command}" for command in commands)])


app = typer.Typer(
    name="nasbench",
    help="Implement, run and rank neural-architecture-search methods side by side.",
    epilog=examples("nasbench run --method fairnas+calr --space nb201    # a minute, offline", "nasbench run --help"),
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Add and list datasets and ground-truth tables.")
app.add_typer(data_app, name="data")

Method = Annotated[
    str, typer.Option("--method", "-m", metavar="LABEL", help="A method and modifiers: fairnas+calr[gamma_prime=3].")
]
Space = Annotated[str, typer.Option("--space", "-s", metavar="NAME", help="A search space: nb201.")]
Dataset = Annotated[str | None, typer.Option(metavar="NAME", help="What to train on. [default: what the preset names]")]
Target = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Whose ground truth to rank against. [default: what the dataset names]"),
]
Preset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="quick (a minute), cpu (minutes) or paper (its setting). [default: quick]"),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting: train.epochs=3. Repeatable."),
]
Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Settings in YAML, as `nasbench config` prints them.")
]
Runs = Annotated[Path, typer.Option(metavar="DIR", help="Where records and checkpoints are.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(
    epilog=examples(
        "nasbench run -m fairnas+calr -s nb201",
        "nasbench run -m spos -s nb201 --dataset cifar10-jpeg --preset cpu --seeds 3",
    )
)
def run(
    method: Method,
    space: Space,
    dataset: Dataset = None,
    target: Target = None,
    preset: Preset = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Run seeds 0 to N-1.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="K", help="Run this one seed. [default: 0]")] = None,
    sets: Sets = None,
    config: Config = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    runs: Runs = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Start over, even if the run is finished.")] = False,
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
    plan = [
        recipes.resolve(
            method,
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
    from nasbench import show
    from nasbench.run import execute, prepare

    if dry_run:
        for i, one in enumerate(plan):
            prepared, _ = prepare(one, runs)
            show.plan(prepared, announce=i == 0)
        return
    done: list[dict[str, Any]] = []
    for one in plan:
        with show.Terminal(announce=not done) as terminal:
            record, path = execute(one, runs, observers=[terminal], force=force)
        show.record(record, path, finished_before=not terminal.started)
        done.append(record)
    if len(done) > 1:
        show.over_seeds(done)


@app.command("list", epilog=examples("nasbench list", "nasbench list methods --json", "nasbench list methods --check"))
def list_(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="methods, modifiers, spaces, datasets, evaluators, presets or all.")
    ] = "all",
    json: Json = False,
    check: Annotated[
        bool, typer.Option("--check", help="Import every method and space, others' too, and ask which go together.")
    ] = False,
) -> None:
    """List what is installed, and which method runs on which space."""
    from nasbench import home
    from nasbench.files import dump_json
    from nasbench.plugins import GROUPS, discover

    kinds = {f"{kind}s": kind for kind in GROUPS}
    if what not in {*kinds, "presets", "all"}:
        raise unknown("listing", what, {*kinds, "presets", "all"})
    found: dict[str, dict[str, str]] = {}
    for plural, kind in kinds.items():
        if what in (plural, "all"):
            entries = discover(kind)
            found[plural] = {n: f"{e.dist.name} {e.dist.version}" if e.dist else "" for n, e in entries.items()}
    if "datasets" in found:
        found["datasets"] |= dict.fromkeys(home.stored("datasets"), "added with `nasbench data add`")
    if what in ("presets", "all"):
        from nasbench.recipe import PRESETS

        found["presets"] = PRESETS
    spaces: dict[str, list[str]] = {}
    if "methods" in found:
        from nasbench import matrix

        pairs = matrix.ask(list(found["methods"]), list(discover("space"))) if check else matrix.shipped()
        spaces = {method: [space for space, why in row.items() if not why] for method, row in pairs.items()}
    if json:
        typer.echo(dump_json({**found, "spaces_of": spaces} if spaces else found), nl=False)
        return
    for plural, names in found.items():
        typer.echo(plural)
        for name, about in names.items():
            known = (
                f"on {' '.join(spaces[name])}"
                if name in spaces
                else "--check tells on what"
                if plural == "methods"
                else ""
            )
            typer.echo(f"  {name:<24} {about:<16} {known}".rstrip())


@app.command(epilog=examples("nasbench config -m fairnas+calr -s nb201 --preset cpu > my.yaml"))
def config(
    method: Method,
    space: Space,
    dataset: Dataset = None,
    target: Target = None,
    preset: Preset = None,
    sets: Sets = None,
) -> None:
    """Print the YAML that `run --config` reads.

    It holds every setting, its value and what it means.
    """
    from nasbench import recipe as recipes
    from nasbench.show import commented_yaml

    resolved = recipes.resolve(
        method, space, dataset=dataset, target=target, preset=preset, sets=recipes.parse_set(sets or [])
    )
    typer.echo(commented_yaml(resolved), nl=False)


@app.command(
    epilog=examples(
        "nasbench query -s tiny 'layer0=skip layer1=linear layer2=skip'",
        "nasbench query -s nb201 11718 --dataset cifar10 --split test --json",
    )
)
def query(
    space: Space,
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="An architecture in the space's text form, or a number.")],
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Only this dataset.")] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Only this split: valid or test.")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Only this training length.")] = None,
    seed: Annotated[str | None, typer.Option(metavar="K", help="Only this seed, or mean.")] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Show costs and ground truth of an architecture.

    Every number comes with its dataset, split, epochs and seed; the options narrow them down.
    """
    from nasbench import show
    from nasbench.files import dump_json
    from nasbench.plugins import build, load
    from nasbench.recipe import parse_set

    options = parse_set(sets or [])
    for group in options:
        if group != space:
            raise unknown("group of settings", group, [space])
    made = build(load("space", space), space, options.get(space, {}))
    answer = show.describe(made, made.parse(arch))
    for key, value in {"dataset": dataset, "split": split, "epochs": epochs, "seed": seed}.items():
        if value is None:
            continue
        rows = [row for row in answer["ground_truth"] if str(row[key]) == str(value)]
        if not rows:
            if not answer["ground_truth"]:
                raise BadInput(f"There is no ground truth of {answer['arch']} at hand; ask without --{key}.")
            raise unknown(key, str(value), {str(row[key]) for row in answer["ground_truth"]})
        answer["ground_truth"] = rows
    if json:
        typer.echo(dump_json(answer), nl=False)
    else:
        show.architecture(answer)


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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the matrix, refusals and time, and stop.")] = False,
) -> None:
    """Run every method on every space, several runs at a time.

    The same command goes on where it was. A run that fails does not stop the others; the exit code is then 1.
    """
    if workers is not None and workers < 1:
        raise BadInput(f"--workers {workers} does not fit: expected 1 or more.")
    from nasbench import engines
    from nasbench import sweep as sweeps
    from nasbench.machine import cores, gpus
    from nasbench.sweep_table import SweepTable

    if engine not in engines.ENGINES:
        raise unknown("engine", engine, engines.ENGINES)
    matrix = sweeps.read(file)
    jobs = sweeps.plan(matrix, runs, device)
    threads = max((job.recipe.engine.threads or 1 for job in jobs if job.recipe), default=1)
    count = gpus() if device != "cpu" else 0
    slots = workers or count or max(1, cores() // threads)
    table = SweepTable(jobs, slots if engine == "local" else None)
    if dry_run:
        table.show()
        return
    with table:
        sweeps.execute(jobs, engines.make(engine, runs, slots, count), look=table.look)
    raise typer.Exit(int(any(job.state == "failed" for job in jobs)))


@app.command(epilog=examples("nasbench leaderboard", "nasbench leaderboard --runs runs --out leaderboards"))
def leaderboard(
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write tables and records here. [default: print them]")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 if the tables in --out are not what the records there give.")
    ] = False,
    format: Annotated[str, typer.Option(metavar="NAME", help="md, csv or latex, when printing.")] = "md",
) -> None:
    """Make the leaderboards from records.

    A row is mean, spread and interval over seeds, with the trivial baseline beside them.
    """
    from nasbench import leaderboard as boards
    from nasbench import reported

    if check:
        out = out or Path("leaderboards")
        for path in (stale := boards.stale(out)):
            typer.echo(
                f"{path} is not what the records give; run `nasbench leaderboard --runs {out} --out {out}`.",
                err=True,
            )
        raise typer.Exit(int(bool(stale)))
    if out is None:
        typer.echo(boards.render_all(boards.read_all(runs), format, reported.read(runs / "reported")), nl=False)
        return
    for path in boards.publish(runs, out):
        typer.echo(f"wrote {path}")


@app.command(
    epilog=examples(
        "nasbench compare fairnas+calr+ms fairnas", "nasbench compare spos+ms spos --runs leaderboards --metric top1"
    )
)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A method and modifiers, as a leaderboard names its row.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another, in the same table.")],
    runs: Runs = Path("runs"),
    metric: Annotated[str, typer.Option(metavar="NAME", help="What to compare: kendall_tau, top1.")] = "kendall_tau",
) -> None:
    """Compare two methods, paired by seed.

    A difference whose 95 % interval contains 0 is not called one.
    """
    from nasbench import show
    from nasbench.comparison import compare as compared
    from nasbench.leaderboard import read_all

    for one in compared(read_all(runs), a, b, metric):
        show.comparison(one)


@app.command(epilog=examples("nasbench plot", "nasbench plot --runs leaderboards --out leaderboards --x params"))
def plot(
    runs: Runs = Path("runs"),
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the pictures go, as SVG.")] = Path("plots"),
    x: Annotated[str, typer.Option(metavar="NAME", help="What to draw against: madds, params.")] = "madds",
    y: Annotated[str, typer.Option(metavar="NAME", help="What to draw: top1, retention.")] = "top1",
) -> None:
    """Draw accuracy against cost, a picture for each table.

    A curve is a method in one phase, its points the budgets, its bars the spread over seeds.
    """
    from nasbench.plot import plot as drawn

    for path in drawn(runs, out, x, y):
        typer.echo(f"wrote {path}")


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
    from nasbench.specialize import specialize as make

    answer, folder = make(records.locate(runs, run), scenario, out)
    if json:
        typer.echo(dump_json(answer), nl=False)
    else:
        show.specialized(answer, folder)


@app.command(epilog=examples("nasbench verify leaderboards/records/fairnas-nb201-cifar10-jpeg-cpu-s0-422ce3b8.json"))
def verify(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="A record's path, or its run's name or id.")],
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Where the new run goes.")] = Path("verified"),
) -> None:
    """Run a record's recipe again and compare; exit 1 if a result differs.

    Equality is to be expected on the same machine with the same versions; elsewhere, numbers that are close.
    """
    from nasbench import records, show
    from nasbench.verify import verify as again

    with show.Terminal() as terminal:
        found = again(records.locate(Path("runs"), record), runs, [terminal])
    for difference in found:
        typer.echo(difference)
    typer.echo(f"{len(found)} differences" if found else "the same")
    raise typer.Exit(int(bool(found)))


@data_app.command("list", epilog=examples("nasbench data list --json"))
def data_list(json: Json = False) -> None:
    """List the datasets and tables at hand, and where they live."""
    from nasbench import home
    from nasbench.files import dump_json
    from nasbench.plugins import discover

    found = {
        "home": str(home.path()),
        "datasets": list(dict.fromkeys([*discover("dataset"), *home.stored("datasets")])),
        "tables": home.stored("tables"),
    }
    if json:
        typer.echo(dump_json(found), nl=False)
        return
    typer.echo(f"home      {found['home']}  (change it with NASBENCH_HOME)")
    typer.echo(f"datasets  {', '.join(found['datasets'])}")
    typer.echo(f"tables    {', '.join(found['tables']) or 'none added'}; a space may embed one of its own")


@data_app.command(
    "add",
    epilog=examples("nasbench data add nb201 FILE.csv", "nasbench data add cifar10-jpeg FOLDER --target cifar10"),
)
def data_add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A search space, to add its ground truth, or a new dataset's name.")
    ],
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="The ground truth, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The dataset whose ground truth the images are ranked against."),
    ] = None,
) -> None:
    """Add a ground-truth table, or a folder of images."""
    from nasbench.importing import add_images, add_table
    from nasbench.plugins import discover

    is_space = name in discover("space")
    if is_space and target is not None:
        raise BadInput(f"--target belongs to a folder of images, and {name!r} is a search space.")
    typer.echo(add_table(name, path) if is_space else add_images(name, path, target))


@app.command(epilog=examples("nasbench check fairnas"))
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A method, modifier, space or evaluator.")],
) -> None:
    """Check that a plugin keeps the rules that all keep.

    What it does not is said with what to do about it; the exit code is then 1.
    """
    from nasbench.plugins import all_names, discover
    from nasbench.testing import SUITES, checks

    kinds = [kind for kind in SUITES if name in discover(kind)]
    if not kinds:
        raise unknown("plugin", name, all_names(SUITES))
    problems = 0
    for one in [one for kind in kinds for one in checks(kind, name)]:
        problem = one.problem()
        typer.echo(f"failed  {one}: {_line(problem)}" if problem else f"ok      {one}")
        problems += problem is not None
    raise typer.Exit(int(problems > 0))


#: Base of what typer raises for a flag or command it cannot use, wherever this version of it keeps the class.
UsageError: Any = typer.BadParameter.__mro__[1]


def main() -> None:
    """Entry point: 0 done, 1 failed or stale, 2 bad input or refused, 130 interrupted."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {_line(message)}\n"
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="nasbench", standalone_mode=False)
    except BadInput as error:
        code = _fail(2, error)
    except UsageError as error:
        where = error.ctx.command_path if error.ctx else "nasbench"
        code = _fail(2, f"{error.format_message().rstrip('.')} (see `{where} --help`).")
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    if code == 130:
        _fail(code, "interrupted; the same command goes on where it was.")
    sys.exit(code)


def _fail(code: int, message: object) -> int:
    print(f"nasbench: {_line(message)}", file=sys.stderr)
    return code


def _line(message: object) -> str:
    # What a library or a plugin says may have several lines.
    return re.sub(r"\s*\n\s*", " ", str(message).strip())
