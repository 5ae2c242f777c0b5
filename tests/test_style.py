"""Format, lint, types, and two rules of the house: the core names no plugin, and no hook goes unregistered."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from types import FunctionType

import pytest

from nasbench.data import Dataset
from nasbench.hookspecs import Hooks
from nasbench.plugins import GROUPS, Evaluator, Method, Modifier, Observer, discover
from nasbench.space import SearchSpace
from nasbench.sweeps.engines import Engine

ROOT = Path(__file__).parents[1]
OURS = [e for kind in GROUPS for e in discover(kind).values() if e.dist and e.dist.name == "nasbench"]
PACKAGES = sorted({entry.module.partition(".")[0] for entry in OURS} - {"nasbench"})


@pytest.mark.parametrize("command", ["ruff format --check .", "ruff check .", "mypy"])
def test_clean(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_core_names_no_method_and_no_space() -> None:
    names = {n for kind in ("method", "modifier", "space") for n in discover(kind)}
    names -= {"random", "params", "madds", "retrain"}  # words of their own: a module, two costs, a flag
    names |= {entry.attr for kind in ("method", "modifier", "space") for entry in discover(kind).values()}
    for path in sorted((ROOT / "nasbench").rglob("*.py")):
        code = re.sub(r'""".*?"""|#.*', "", path.read_text(), flags=re.DOTALL)  # prose may give examples
        code = re.sub(r"(help|epilog)=.*|\"[^\"\n]* [^\"\n]*\"", "", code)  # and so may help texts and messages
        found = names & set(re.findall(r"[\w-]+", code))
        assert not found, f"{path.name} names {found}"


def test_every_plugin_is_registered() -> None:
    registered = {entry.value for kind in GROUPS for entry in discover(kind).values()}
    for package in PACKAGES:
        for module in pkgutil.iter_modules([str(Path(importlib.import_module(package).__file__ or "").parent)]):
            name = f"{package}.{module.name}"
            for label, cls in inspect.getmembers(importlib.import_module(name), inspect.isclass):
                if (
                    cls.__module__ == name
                    and not inspect.isabstract(cls)
                    and issubclass(cls, Method | Modifier | Evaluator | Observer | SearchSpace | Dataset)
                ):
                    assert f"{name}:{label}" in registered, f"{name}:{label} has no entry point in pyproject.toml"


def test_public_things_have_docstrings() -> None:
    bare = []
    for package in ("nasbench", "nasbench_papers", *PACKAGES):
        inside = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        for module in [package, *(m.name for m in inside if not m.name.endswith("__main__"))]:
            loaded = importlib.import_module(module)
            bare += [] if loaded.__doc__ else [loaded.__name__]
            for label, thing in vars(loaded).items():
                public = not label.startswith("_") and getattr(thing, "__module__", None) == loaded.__name__
                function = callable(thing) and inspect.isfunction(inspect.unwrap(thing))  # a cached one is wrapped
                if not public or not (inspect.isclass(thing) or function):
                    continue
                bare += [] if inspect.getdoc(thing) else [f"{loaded.__name__}.{label}"]
                for name in methods_without_docstring(thing) if inspect.isclass(thing) else ():
                    bare.append(f"{loaded.__name__}.{label}.{name}")
    assert not bare


def methods_without_docstring(cls: type) -> list[str]:
    """Public methods and properties of a class, without those documented elsewhere.

    A hook is by its specification, a method that overrides by its base, what torch calls by torch, and a
    check of the conformance suite has a sentence for a name.
    """
    elsewhere = {"forward", "state_dict", "load_state_dict", *vars(Hooks), *vars(Engine)}
    elsewhere |= {name for base in cls.__mro__[1:] for name in vars(base)}
    return [
        name
        for name, thing in vars(cls).items()
        if isinstance(thing, FunctionType | property | cached_property | classmethod | staticmethod)
        and not name.startswith(("_", "check_"))
        and name not in elsewhere
        and not thing.__doc__
    ]
