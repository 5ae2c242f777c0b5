"""What is installed: which distribution registers what, what it says of itself, and what of it cannot be used."""

from __future__ import annotations

import ast
import functools
import importlib.util
import itertools
import re
import sys
from collections import defaultdict
from importlib.metadata import EntryPoint
from pathlib import Path

from nasbench.errors import BadInput
from nasbench.plugins import GROUPS, load, origin, registered


def by_origin() -> dict[str, dict[str, list[str]]]:
    """For each distribution with its version, and each file of `--plugin`, the names it registers of each kind."""
    found: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for kind in GROUPS:
        for entry in registered(kind):
            found[origin(entry)].setdefault(f"{kind}s", []).append(entry.name)
    return dict(sorted(found.items()))


def problems() -> list[str]:
    """What others register and cannot be used, a sentence each; theirs is imported for that, ours is tested."""
    found = []
    for kind in GROUPS:
        for name in {e.name: None for e in registered(kind) if e.dist is None or e.dist.name != "nasbench"}:
            try:
                load(kind, name)
            except BadInput as error:
                found.append(str(error))
    return found


def description(entry: EntryPoint) -> str:
    """The first sentence of a registration's docstring, read from its source: nothing is imported.

    Empty where there is none, and where the source is not found or cannot be read.
    """
    module, _, name = entry.value.partition(":")
    docstring = " ".join(_docstrings(module).get(name, "").split())
    # The full stop of "et al. 2017" has a digit behind it, the one of "e.g." another before it.
    return re.split(r"(?<=\.)(?<!\.\w\.) (?=\D)", docstring)[0]


@functools.cache
def _docstrings(module: str) -> dict[str, str]:
    """The docstrings of a module's classes and functions, and the texts below its constants."""
    found: dict[str, str] = {}
    try:
        source = _source(module)
        body = ast.parse(source.read_bytes()).body if source else []
    except (ImportError, OSError, SyntaxError, ValueError):  # ValueError: a module without a spec, or a zero byte
        return found
    for node, below in itertools.pairwise([*body, ast.Pass()]):
        match node, below:
            case ((ast.ClassDef() | ast.FunctionDef()), _):
                found[node.name] = ast.get_docstring(node) or ""
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = text
    return found


def _source(module: str) -> Path | None:
    """The file of a module. A package is not imported to find what is inside."""
    if file := getattr(sys.modules.get(module), "__file__", None):
        return Path(file)
    top, *inside = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not inside:
        return Path(spec.origin) if spec and spec.origin else None
    places = [Path(folder, *inside) for folder in spec.submodule_search_locations or ()]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return next((file for file in files if file.is_file()), None)
