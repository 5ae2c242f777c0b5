"""The command line: one thin function per verb. What is heavy is imported inside, so that help is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from nasbench.errors import BadInput, unknown

app = typer.Typer(
    name="nasbench",
    help="Implement, run and rank neural-architecture-search methods side by side.",
    epilog="Start here: nasbench run --method fairnas+calr --space nb201   (a minute, offline)",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Datasets and ground-truth tables.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Method = Annotated[str, typer.Option("--method", "-m", help="A method and modifiers: fairnas+calr[gamma_prime=3].")]
Space = Annotated[str, typer.Option("--space", "-s", help="A search space: nb201.")]
Dataset = Annotated[Optional[str], typer.Option(help="What to train on; the preset names one.")]  # noqa: UP045
Target = Annotated[str | None, typer.Option(help="Whose ground truth to rank against; the dataset names one.")]
Preset = Annotated[str, typer.Option(help="quick (a minute), cpu (minutes), paper (the paper's setting).")]
Sets = Annotated[list[str], typer.Option("--set", help="Change one setting: train.epochs=3. Repeatable.")]
Config = Annotated[Optional[Path], typer.Option(help="A YAML file as `nasbench config` prints it.")]  # noqa: UP045
Runs = Annotated[Path, typer.Option(help="Where records and checkpoints go.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(
    epilog="Examples: nasbench run -m fairnas+calr -s nb201   |   "
    "nasbench run -m spos -s nb201 --dataset cifar10-jpeg --preset cpu --seeds 3"
)
def run(
    method: Method,
    space: Space,
    dataset: Dataset = None,
    target: Target = None,
    preset: Preset = "quick",
    seeds: Annotated[Optional[int], typer.Option(help="Run seeds 0 to N-1.")] = None,  # noqa: UP045
    seed: Annotated[Optional[int], typer.Option(help="Run this one seed (default 0).")] = None,  # noqa: UP045
    sets: Sets = [],  # noqa: B006
    config: Config = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    runs: Runs = Path("runs"),
    force: Annotated[bool, typer.Option(help="Start over, even if the run is finished.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
) -> None:
    """Run a method on a search space, once per seed. The same command goes on after a crash."""
    from nasbench import recipe as recipes

    if seed is not None and seeds is not None:
        raise BadInput("Give --seeds N or --seed K, not both.")
    if seeds is not None and seeds < 1:
        raise BadInput(f"--seeds {seeds} does not fit: expected 1 or more.")
    settings: dict[str, Any] = {
        "config": recipes.read_config(config) if config else {},
        "sets": recipes.parse_set(sets),
    }
    wanted = range(seeds) if seeds is not None else [seed or 0]
    plan = [
        recipes.resolve(method, space, dataset=dataset, target=target, preset=preset, seed=s, device=device, **settings)
        for s in wanted
    ]
    from nasbench import show
    from nasbench.run import execute, prepare

    show.setting(plan[0])
    if dry_run:
        for one in plan:
            prepared, _ = prepare(one, runs)
            show.plan(prepared)
        return
    done = []
    for one in plan:
        with show.ProgressBar() as bar:
            record, path = execute(one, runs, observers=[bar], force=force)
        show.record(record, path)
        done.append(record)
    if len(done) > 1:
        show.over_seeds(done)


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="methods, modifiers, spaces, datasets, evaluators, presets or all.")
    ] = "all",
    json: Json = False,
) -> None:
    """List what is installed. Reads package metadata only."""
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
    if what in ("datasets", "all"):
        from nasbench import home

        added = sorted(p.stem for p in home.path("datasets").glob("*.safetensors"))
        found["datasets"] |= dict.fromkeys(added, "added")
    if what in ("presets", "all"):
        from nasbench.recipe import PRESETS

        found["presets"] = PRESETS
    if json:
        typer.echo(dump_json(found), nl=False)
        return
    for plural, names in found.items():
        typer.echo(plural)
        for name, about in names.items():
            typer.echo(f"  {name:<24} {about}")


@app.command(epilog="Example: nasbench config -m fairnas+calr -s nb201 --preset cpu > my.yaml")
def config(
    method: Method,
    space: Space,
    dataset: Dataset = None,
    target: Target = None,
    preset: Preset = "quick",
    sets: Sets = [],  # noqa: B006
) -> None:
    """Print the YAML that `run --config` reads: every setting, its value and what it means."""
    from nasbench import recipe as recipes
    from nasbench.show import commented_yaml

    resolved = recipes.resolve(
        method, space, dataset=dataset, target=target, preset=preset, sets=recipes.parse_set(sets)
    )
    typer.echo(commented_yaml(resolved), nl=False)


@app.command(epilog="Example: nasbench query --space nb201 '|nor_conv_3x3~0|+|none~0|...|' --json")
def query(
    space: Space,
    arch: Annotated[str, typer.Argument(help="An architecture in the space's text form.")],
    dataset: Annotated[Optional[str], typer.Option(help="Only this dataset.")] = None,  # noqa: UP045
    split: Annotated[Optional[str], typer.Option(help="Only this split: valid or test.")] = None,  # noqa: UP045
    epochs: Annotated[Optional[int], typer.Option(help="Only this training length.")] = None,  # noqa: UP045
    seed: Annotated[Optional[str], typer.Option(help="Only this seed, or mean.")] = None,  # noqa: UP045
    sets: Sets = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Costs and ground truth of an architecture, each number with its dataset, split, epochs and seed."""
    from nasbench import show
    from nasbench.files import dump_json
    from nasbench.plugins import build, load
    from nasbench.recipe import parse_set

    options = parse_set(sets)
    for group in options:
        if group != space:
            raise unknown("group of settings", group, [space])
    made = build(load("space", space), space, options.get(space, {}))
    answer = show.describe(made, made.parse(arch))
    wanted = {"dataset": dataset, "split": split, "epochs": epochs, "seed": seed}
    for key, value in wanted.items():
        if value is None:
            continue
        known = {str(row[key]) for row in answer["ground_truth"]}
        if str(value) not in known:
            raise unknown(key, str(value), known)
        answer["ground_truth"] = [row for row in answer["ground_truth"] if str(row[key]) == str(value)]
    if json:
        typer.echo(dump_json(answer), nl=False)
    else:
        show.architecture(answer)


@app.command(epilog="Example: nasbench leaderboard --runs runs --out leaderboards")
def leaderboard(
    runs: Annotated[Path, typer.Option(help="Where the records are.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Write tables and records here; default: print.")] = None,
    check: Annotated[bool, typer.Option(help="Exit 1 if the tables in --out are not what its records give.")] = False,
    format: Annotated[str, typer.Option(help="md, csv or latex (when printing).")] = "md",
) -> None:
    """Write the leaderboards from records: mean, spread, interval, and the trivial baseline beside them."""
    from nasbench import leaderboard as boards

    if check:
        stale = boards.stale(out or Path("leaderboards"))
        for path in stale:
            typer.echo(
                f"{path} is not what the records give; run `nasbench leaderboard --runs RUNS --out {path.parent}`.",
                err=True,
            )
        raise typer.Exit(bool(stale))
    if out is not None:
        for path in boards.publish(runs, out):
            typer.echo(f"wrote {path}")
        return
    typer.echo(boards.render_all(boards.read_all(runs), format), nl=False)


@data_app.command("list")
def data_list(json: Json = False) -> None:
    """The datasets and tables at hand, and where they live."""
    from nasbench import home
    from nasbench.files import dump_json
    from nasbench.plugins import discover

    found = {
        "home": str(home.path()),
        "datasets": [
            *discover("dataset"),
            *sorted(p.stem for p in home.path("datasets").glob("*.safetensors")),
        ],
        "tables": sorted(p.stem for p in home.path("tables").glob("*.safetensors")),
    }
    if json:
        typer.echo(dump_json(found), nl=False)
        return
    typer.echo(f"home      {found['home']}  (change it with NASBENCH_HOME)")
    typer.echo(f"datasets  {', '.join(found['datasets'])}")
    typer.echo(f"tables    {', '.join(found['tables']) or 'none added'}; a space may embed one of its own")


@data_app.command(
    "add",
    epilog="Examples: nasbench data add nb201 FILE.csv   |   nasbench data add cifar10-jpeg FOLDER --target cifar10",
)
def data_add(
    name: Annotated[str, typer.Argument(help="A space, to add its ground truth, or a new dataset's name.")],
    path: Annotated[
        Path,
        typer.Argument(help="The table's file, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE."),
    ],
    target: Target = None,
) -> None:
    """Add a ground-truth table of a space, or a folder of images as a dataset."""
    from nasbench.importing import add_images, add_table
    from nasbench.plugins import discover

    if not path.exists():
        raise BadInput(f"There is no {path}; expected a table's file or a folder of images.")
    typer.echo(add_table(name, path) if name in discover("space") else add_images(name, path, target))


def main() -> None:
    """Entry point: 0 done, 1 failed or stale, 2 bad input or refused, 130 interrupted."""
    try:
        app()
    except BadInput as error:
        print(f"nasbench: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("nasbench: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)
