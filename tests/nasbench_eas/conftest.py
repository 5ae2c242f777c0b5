"""Runs on the MobileNetV3 space at the preset test; networks as small as these are fastest on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from nasbench import Run
from nasbench.harness import prepare
from nasbench.recipe import resolve

Prepare: TypeAlias = "Callable[..., Run]"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """`prepared("eas", *observers, eas={"q": 1})` composes a run and starts nothing."""
    monkeypatch.setattr("os.fsync", lambda _: None)

    def make(method: str, *observers: Any, seed: int = 0, **sets: dict[str, Any]) -> Run:
        recipe = resolve(method, "mobilenetv3", preset="test", seed=seed, sets=sets)
        return prepare(recipe, tmp_path / "runs", observers)[0]

    return make
