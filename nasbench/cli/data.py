"""Datasets and tables: data list, data add."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasbench.cli.options import Json, Plugins, data_app, examples
from nasbench.errors import BadInput


@data_app.command("list", epilog=examples("nasbench data list --json"))
def data_list(json: Json = False) -> None:
    """List the datasets and tables at hand, and where they live.

    Of a built-in dataset that is not at hand it says how to get it.
    """
    from nasbench import home
    from nasbench.files import dump_json
    from nasbench.plugins import discover

    missing = home.missing()
    found = {
        "home": str(home.path()),
        "datasets": list(dict.fromkeys([*discover("dataset"), *home.stored("datasets")])),
        "missing": missing,
        "tables": home.stored("tables"),
        "costs": home.stored("costs"),
    }
    if json:
        typer.echo(dump_json(found), nl=False)
        return
    typer.echo(f"home      {found['home']}  (change it with NASBENCH_HOME)")
    typer.echo(f"datasets  {', '.join(name for name in found['datasets'] if name not in missing)}")
    for name, how in missing.items():
        typer.echo(f"          {name} is not at hand: {how}")
    typer.echo(f"tables    {', '.join(found['tables']) or 'none added'}; a space may embed one of its own")
    typer.echo(f"costs     {', '.join(found['costs']) or 'none added'}; `nasbench list costs` names what can be")


@data_app.command(
    "add",
    epilog=examples(
        "nasbench data add nb201 FILE.csv",
        "nasbench data add cifar10-jpeg FOLDER --target cifar10",
        "nasbench data add cub200 FOLDER --size 224",
        "nasbench data add hw-nas-bench HW-NAS-Bench-v1_0.pickle",
    ),
)
def data_add(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A search space, to add its ground truth, a cost table, or a new dataset's name."
        ),
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
    size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Resize the middle square of each image of a folder to this side."),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Add a ground-truth table, or a folder of images."""
    if size is not None and size < 4:
        raise BadInput(f"--size {size} does not fit: expected 4 or more.")
    from nasbench.importing import add_images, add_table
    from nasbench.plugins import discover

    if name in discover("cost"):
        from nasbench.costs import add_costs

        if target is not None or size is not None:
            raise BadInput(f"--target and --size belong to a folder of images, and {name!r} is a table of costs.")
        typer.echo(add_costs(name, path))
        return
    is_space = name in discover("space")
    if is_space and target is not None:
        raise BadInput(f"--target belongs to a folder of images, and {name!r} is a search space.")
    if is_space and size is not None:
        raise BadInput(f"--size belongs to a folder of images, and {name!r} is a search space.")
    typer.echo(add_table(name, path) if is_space else add_images(name, path, target, size))
