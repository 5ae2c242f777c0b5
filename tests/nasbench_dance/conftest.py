"""Short real runs of the pruning methods, and gates to look at alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from nasbench import Run
from nasbench.harness import prepare
from nasbench.recipe import resolve

Start: TypeAlias = "Callable[..., Run]"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for the disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """`start("dance", dance={"tau": 1.0})` composes a run at the preset `test`, ready to train, in float64."""

    def start_(
        label: str, space: str = "resnet18", *observers: Any, seed: int = 0, runs: str = "runs", **sets: Any
    ) -> Run:
        sets["engine"] = {"precision": "float64", **sets.get("engine", {})}
        recipe = resolve(label, space, preset="test", seed=seed, sets=sets)
        return prepare(recipe, tmp_path / runs, observers)[0]

    return start_
