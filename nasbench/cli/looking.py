"""Verbs that show what there is: list, config, query, check."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Annotated

import typer

from nasbench.cli.options import Dataset, Json, Method, Plugins, Preset, Sets, Space, Target, app, examples, one_line
from nasbench.errors import BadInput, unknown


@app.command("list", epilog=examples("nasbench list", "nasbench list plugins", "nasbench list methods --check --json"))
def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="methods, modifiers, spaces, datasets, evaluators, observers, costs, papers, presets, plugins or all.",
        ),
    ] = "all",
    plugin: Plugins = None,
    json: Json = False,
    check: Annotated[
        bool, typer.Option("--check", help="Import every method and space, others' too, and ask which go together.")
    ] = False,
) -> None:
    """List what is installed, and which method runs on which space.

    Each is shown with the first sentence of its docstring, and with its distribution where that is not nasbench.
    `plugins` shows which distribution registers what; what cannot be used is named, and the exit code is then 1.
    """
    from nasbench import __version__, home, installed
    from nasbench.files import dump_json
    from nasbench.plugins import GROUPS, discover, origin, registered

    kinds = {f"{kind}s": kind for kind in GROUPS}
    if what not in {*kinds, "plugins", "presets", "all"}:
        raise unknown("listing", what, {*kinds, "plugins", "presets", "all"})
    if what == "plugins":
        origins, problems = installed.by_origin(), installed.problems()
        if json:
            typer.echo(dump_json({"plugins": origins, "problems": problems}), nl=False)
            raise typer.Exit(int(bool(problems)))
        for where, names_of in origins.items():
            typer.echo(where)
            for plural, mine in names_of.items():
                typer.echo(f"  {plural:<10} {' '.join(mine)}")
        for problem in problems:
            typer.echo(f"problem: {one_line(problem)}", err=True)
        raise typer.Exit(int(bool(problems)))
    found: dict[str, dict[str, str]] = {}
    descriptions: dict[str, dict[str, str]] = {}
    for plural, kind in kinds.items():
        if what in (plural, "all"):
            found[plural], descriptions[plural] = {}, {}
            for entry in registered(kind):  # a name that is registered twice is shown with both
                known = found[plural].get(entry.name)
                found[plural][entry.name] = f"{known}, {origin(entry)}" if known else origin(entry)
                descriptions[plural][entry.name] = "" if known else installed.description(entry)
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
        more = {"descriptions": descriptions, "spaces_of": spaces}
        typer.echo(dump_json({**found, **{key: value for key, value in more.items() if value}}), nl=False)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None  # a pipe gets every word
    for plural, names in found.items():
        typer.echo(plural)
        for name, where in names.items():
            theirs = "" if where == f"nasbench {__version__}" else f"[{where}]"
            text, theirs = (where, "") if plural == "presets" else (descriptions[plural].get(name, ""), theirs)
            typer.echo(_row(name, text, theirs, width))
            if plural == "methods":
                typer.echo(_row("", f"on {' '.join(spaces[name])}" if name in spaces else "--check tells on what", ""))


def _row(name: str, text: str, theirs: str, width: int | None = None) -> str:
    """A line of a list; the text is cut to the terminal's width, and whose it is stays."""
    if width is not None:
        text = textwrap.shorten(text, max(width - 28 - len(theirs), 1), placeholder="…")
    return f"  {name:<24} {f'{text} {theirs}'.strip()}".rstrip()


@app.command(epilog=examples("nasbench config -m fairnas+calr -s nb201 --preset cpu > my.yaml"))
def config(
    method: Method,
    space: Space,
    dataset: Dataset = None,
    target: Target = None,
    preset: Preset = None,
    sets: Sets = None,
    plugin: Plugins = None,
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
    plugin: Plugins = None,
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
    if dataset is not None:
        answer["measured"] = [row for row in answer["measured"] if row["dataset"] == dataset]
    if json:
        typer.echo(dump_json(answer), nl=False)
    else:
        show.architecture(answer)


@app.command(epilog=examples("nasbench check fairnas", "nasbench check mine --plugin mine.py"))
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A method, modifier, space or evaluator.")],
    plugin: Plugins = None,
) -> None:
    """Check that a plugin keeps the rules that all keep.

    What it does not is said with what to do about it; the exit code is then 1.
    """
    from nasbench.plugins import all_names, discover, load
    from nasbench.testing import SUITES, checks

    kinds = [kind for kind in SUITES if name in discover(kind)]
    if not kinds:
        raise unknown("plugin", name, all_names(SUITES))
    for kind in kinds:
        load(kind, name)  # what cannot be used at all is said once
    problems: dict[str, str] = {}
    for one in [one for kind in kinds for one in checks(kind, name)]:
        problem = one.problem()
        if problem is None:
            typer.echo(f"ok      {one}")
        else:
            before = problems.setdefault(problem, one.title)
            typer.echo(f"failed  {one}: " + (one_line(problem) if before == one.title else f"as {before!r}"))
    raise typer.Exit(int(bool(problems)))
