"""Killed at every few steps and gone on with: the same record, weights, board and norms included."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest

from nasbench.harness import execute
from nasbench.recipe import resolve
from nasbench.records import equal
from nasbench.testing.observers import Killed, Killer, Witness


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("sumnas[inner_buffers=kept]", marks=pytest.mark.invariant("sumnas", 8)),
        pytest.param("pa-da", marks=pytest.mark.invariant("pa-da", 7)),
        pytest.param("spos+nsas[constraints=3]", marks=pytest.mark.invariant("nsas", 6)),
        pytest.param("cream[board=3,warmup=0.2,meta_every=2]", marks=pytest.mark.invariant("cream", 7)),
    ],
)
def test_a_run_that_was_killed_goes_on_to_the_same_record(method: str, tmp_path: Path) -> None:
    sets = {"train": {"epochs": 3, "batch_size": 50}, "engine": {"checkpoint_seconds": 0}}
    recipe = resolve(method, "tiny", preset="test", sets=sets)
    name = method.partition("[")[0].split("+")[-1]

    def trial(runs: str, *observers: Any) -> dict[str, Any]:
        return execute(recipe, tmp_path / runs, observers=[Witness(name, method, "tiny"), *observers])[0]

    kills = 0
    for at in itertools.count(3):
        with contextlib.suppress(Killed):
            resumed = trial("killed", Killer(at))
            break
        kills += 1
    assert kills > 1
    assert equal(trial("whole"), resumed)
