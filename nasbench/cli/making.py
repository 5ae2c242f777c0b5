"""The verb that makes a plugin: new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasbench.cli.options import app, examples


@app.command(epilog=examples("nasbench new method my-sampler", "nasbench new space my-cells --out somewhere/my-cells"))
def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="method, modifier, space or evaluator.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name on the command line: my-sampler.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder to make. [default: the plugin's name]")
    ] = None,
) -> None:
    """Make a package for a plugin of your own.

    It holds one small file that works, a test with the conformance suite, a README and a workflow for CI.
    """
    from nasbench import scaffold

    for path in scaffold.new(kind, name, out):
        typer.echo(f"wrote {path}")
    typer.echo(f"next: cd {out or name}; pip install -e .; nasbench check {name}")
