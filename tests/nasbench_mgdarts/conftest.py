"""Search networks to look at alone, and short real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from nasbench_cells.darts import DARTS
from nasbench_mgdarts.network import SearchNet, full_shapes
from nasbench_mgdarts.units import reset_thresholds

from nasbench import Run
from nasbench.harness import prepare
from nasbench.recipe import resolve

Start: TypeAlias = "Callable[..., Run]"
Net: TypeAlias = "Callable[..., SearchNet]"
ALL = frozenset({"op", "filter", "weight"})


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for the disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """`start("mg-darts", darts={"cells": 3})` composes a run at the preset `test`."""

    def start_(label: str = "mg-darts", *observers: Any, space: str = "darts", runs: str = "runs", **sets: Any) -> Run:
        recipe = resolve(label, space, preset="test", sets=sets)
        return prepare(recipe, tmp_path / runs, observers)[0]

    return start_


@pytest.fixture
def net() -> Net:
    """`net(cells=3)` is a small search network in float64 with thresholds in place, the same each time."""

    def net_(cells: int = 3, search: frozenset[Any] = ALL, shared: bool = False, **space: Any) -> SearchNet:
        made = DARTS(**{"channels": 4, "cells": 3, "variant": "free", "image": (3, 8, 8), **space})
        torch.manual_seed(0)
        found = SearchNet(made, full_shapes(made)[:cells], search, "medium", shared).double()
        reset_thresholds(found, "minimum")
        return found

    return net_


def images(count: int = 4, side: int = 8) -> torch.Tensor:
    """Images [count,3,side,side] in float64."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
