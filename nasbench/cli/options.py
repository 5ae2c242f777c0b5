"""What the verbs of the command line have in common: the app, options, the form of help and of messages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from nasbench import __version__


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


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nasbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """What goes before every verb; the text of the help is the app's."""


METHOD = typer.Option("--method", "-m", metavar="LABEL", help="A method and modifiers: fairnas+calr[gamma_prime=3].")
SPACE = typer.Option("--space", "-s", metavar="NAME", help="A search space: nb201.")
Method = Annotated[str, METHOD]
Space = Annotated[str, SPACE]
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
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Use the plugins of a Python file that is no package yet. Repeatable.",
        is_eager=True,
        callback=lambda files: _register(files or []),
    ),
]
Runs = Annotated[Path, typer.Option(metavar="DIR", help="Where records and checkpoints are.")]
Folders = Annotated[
    list[Path] | None,
    typer.Option("--runs", metavar="DIR", help="Where records are. Repeatable. [default: runs]"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _register(files: list[Path]) -> list[Path]:
    from nasbench import plugin_files

    for file in files:
        plugin_files.add(file)
    return files


def one_line(message: object) -> str:
    """What a library or a plugin says may have several lines."""
    return re.sub(r"\s*\n\s*", " ", str(message).strip())
