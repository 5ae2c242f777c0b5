"""Runs on the MobileNetV3 space at the preset test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from nasbench import Run
from nasbench.harness import prepare
from nasbench.recipe import resolve

Prepare: TypeAlias = "Callable[..., Run]"


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """`prepared("eas", *observers, eas={"q": 1})` composes a run and starts nothing."""
    monkeypatch.setattr("os.fsync", lambda _: None)

    def make(method: str, *observers: Any, seed: int = 0, **sets: dict[str, Any]) -> Run:
        recipe = resolve(method, "mobilenetv3", preset="test", seed=seed, sets=sets)
        return prepare(recipe, tmp_path / "runs", observers)[0]

    return make
