"""Plugins in a file that is no package yet: what `--plugin FILE.py` names is registered like what is installed.

The files stand in the environment variable NASBENCH_PLUGINS, so that the processes of a sweep know them too. A file
that needs others beside it is a package (`nasbench new`). A run records the digests of the files that it uses, and of
the packages of others than nasbench: an edited method is another run.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from nasbench.errors import BadInput
from nasbench.plugins import GROUPS, registered

VARIABLE = "NASBENCH_PLUGINS"
#: What a class derives from tells its kind; by name, since importing the bases takes seconds.
KINDS = {
    "nasbench.plugins.Method": "method",
    "nasbench.plugins.Modifier": "modifier",
    "nasbench.plugins.Evaluator": "evaluator",
    "nasbench.plugins.Observer": "observer",
    "nasbench.space.SearchSpace": "space",
    "nasbench.data.Dataset": "dataset",
}


class PluginFile(NamedTuple):
    """A file that was read."""

    path: Path
    digest: str
    """Sixteen hex digits of its content."""
    entries: tuple[EntryPoint, ...]
    """What it registers."""


def add(path: Path) -> None:
    """Register the plugins of a file, here and in processes started from here.

    Raises BadInput if it has none, and beside another of its name, which is what records call it by.
    """
    path, before = path.resolve(), [Path(name) for name in _named() if name]
    for other in before:
        if other.name == path.name and other != path:
            raise BadInput(f"The plugin files {other} and {path} share a name, by which records know them; rename one.")
    read(path)
    os.environ[VARIABLE] = os.pathsep.join(map(str, dict.fromkeys([*before, path])))


def files() -> list[PluginFile]:
    """The files that are registered, in the order they were named."""
    return [read(Path(name)) for name in _named() if name]


def _named() -> list[str]:
    return os.environ.get(VARIABLE, "").split(os.pathsep)


@functools.cache
def read(path: Path) -> PluginFile:
    """Run a file, once a process. Raises BadInput, naming the file, for one that breaks or holds no plugin."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise BadInput(f"The plugin file {path} cannot be read ({error.strerror}).") from None
    digest = hashlib.blake2b(source, digest_size=8).hexdigest()
    module = ModuleType(f"nasbench_plugin_{digest}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        # Not through an import, which may take a stale compiled file for it: what runs is what the digest is of.
        exec(compile(source, path, "exec"), vars(module))
        return PluginFile(path, digest, tuple(_entries(module)))
    except Exception as error:
        del sys.modules[module.__name__]
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"The plugin file {path} cannot be used ({type(error).__name__}: {error}); mend it.") from error


def _entries(module: ModuleType) -> Iterable[EntryPoint]:
    found: dict[tuple[str, str], str] = {}
    for label, cls in vars(module).items():
        mine = inspect.isclass(cls) and cls.__module__ == module.__name__ and not label.startswith("_")
        if not mine or inspect.isabstract(cls):
            continue
        bases = (f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__)
        kind = next((KINDS[base] for base in bases if base in KINDS), None)
        if kind is None:
            continue
        name = name_of(cls)
        if (kind, name) in found:
            raise BadInput(f"{module.__file__} defines the {kind} {name!r} twice, {found[kind, name]} and {label}.")
        found[kind, name] = label
    if not found:
        raise BadInput(f"{module.__file__} defines no plugin; expected a class that is a nasbench.Method or the like.")
    return [EntryPoint(name, f"{module.__name__}:{label}", GROUPS[kind]) for (kind, name), label in found.items()]


def name_of(cls: type) -> str:
    """The `name` that a class declares, else its own with hyphens.

    >>> name_of(type("FairSampler", (), {})), name_of(type("MyENAS2", (), {})), name_of(type("X", (), {"name": "y"}))
    ('fair-sampler', 'my-enas2', 'y')
    """
    declared = getattr(cls, "name", None)
    if isinstance(declared, str):
        return declared
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__).lower()


def digests(names: Iterable[str]) -> dict[str, str]:
    """The files and packages that a run with these terms, space and dataset uses, and their digests.

    A file with an evaluator has a part in every run; a package's evaluators have not, or each that is installed would
    make all runs others.
    """
    used = {*names}
    mine = {
        file.path.name: file.digest
        for file in files()
        if any(entry.name in used or entry.group == GROUPS["evaluator"] for entry in file.entries)
    }
    installed = [e for kind in ("method", "modifier", "space", "dataset") for e in registered(kind) if e.name in used]
    tops = {e.module.partition(".")[0] for e in installed if e.dist is not None and e.dist.name != "nasbench"}
    return mine | {top: package_digest(top) or "" for top in sorted(tops)}


@functools.cache
def package_digest(top: str) -> str | None:
    """Sixteen hex digits of all Python files of a package or module, once a process; None if there is none."""
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    paths = [(p.relative_to(folder), p) for folder in folders for p in sorted(folder.rglob("*.py"))]
    digest = hashlib.blake2b(digest_size=8)
    for name, path in paths or [(Path(f"{top}.py"), Path(spec.origin or ""))]:
        digest.update(f"{name.as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def require(recorded: dict[str, str]) -> None:
    """Raises BadInput if a file or package that a recipe was made with is not here, or has changed since."""
    here = {file.path.name: file.digest for file in files()}
    for name, digest in recorded.items():
        is_file = name.endswith(".py")
        what, how = ("plugin file", f"name it with --plugin {name}") if is_file else ("package", "install it")
        have = here.get(name) if is_file else package_digest(name)
        if have is None:
            raise BadInput(f"This run needs the {what} {name} (digest {digest}); {how}.")
        if have != digest:
            raise BadInput(f"This run was made with another {name}: its digest is {digest}, that here {have}.")
