"""nasbench: implement, run and rank neural-architecture-search methods side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

__version__ = "0.1.0"
hookimpl = pluggy.HookimplMarker("nasbench")

if TYPE_CHECKING:
    from nasbench.api import run as run
    from nasbench.errors import BadInput as BadInput
    from nasbench.plugins import Evaluator as Evaluator
    from nasbench.plugins import Method as Method
    from nasbench.plugins import Modifier as Modifier
    from nasbench.plugins import Observer as Observer
    from nasbench.plugins import Plugin as Plugin
    from nasbench.records import Choice as Choice
    from nasbench.records import Metric as Metric
    from nasbench.records import Record as Record
    from nasbench.running import Run as Run
    from nasbench.space import Arch as Arch
    from nasbench.space import Mixture as Mixture
    from nasbench.space import SearchSpace as SearchSpace

# Imported at first use, so that `nasbench --help` stays instant.
_HOME = {
    "BadInput": "errors",
    "Plugin": "plugins",
    "Method": "plugins",
    "Modifier": "plugins",
    "Evaluator": "plugins",
    "Observer": "plugins",
    "Choice": "records",
    "Metric": "records",
    "Record": "records",
    "Run": "running",
    "Arch": "space",
    "Mixture": "space",
    "SearchSpace": "space",
    "run": "api",
}
__all__ = ["hookimpl", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'nasbench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"nasbench.{_HOME[name]}"), name)
