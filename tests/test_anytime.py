"""Anytime curves: the staircase of the best so far, against queries and, where it is known, training time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, records
from nasbench.anytime import Anytime
from nasbench.metrics import improvements
from nasbench.records import Metric
from nasbench.tables import Column, Table
from tests.conftest import RunTiny

SPACE = Tiny(image=(1, 8, 8))
ARCHS = [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)]
VALID, TEST, SECONDS = [70.0, 80.0, 75.0, 90.0], [71.0, 78.0, 99.0, 88.0], [10.0, 20.0, 40.0, 80.0]


def table(timed: bool = False, valid: bool = True) -> Table:
    columns = {Column("d", "test", 9, "mean"): np.array(TEST)}
    columns |= {Column("d", "valid", 9, "mean"): np.array(VALID)} if valid else {}
    numbers = np.array([SPACE.number(arch) for arch in ARCHS])
    return Table("t", SPACE, numbers, columns, seconds={"d": np.array(SECONDS)} if timed else {})


def curves(truth: Table | None, queries: list[Arch] = [], scores: dict[Arch, float] | None = None) -> Any:  # noqa: B006
    recipe = SimpleNamespace(target="d", score=SimpleNamespace(subset="some"))
    run: Any = SimpleNamespace(recipe=recipe, truth=truth, queries=queries, scores=scores or {})
    return {m.name: m for m in Anytime().evaluate(run, [])}


@pytest.mark.invariant("random-search", 6)
@pytest.mark.invariant("regularized-evolution", 8)
def test_a_search_climbs_query_by_query() -> None:
    order = [ARCHS[2], ARCHS[0], ARCHS[1], ARCHS[2], ARCHS[3]]
    found = curves(table(timed=True), order)
    assert found["anytime_valid"].curve == {"queries": [1, 3, 5], "seconds": [40, 70, 190], "value": [75, 80, 90]}
    # The test accuracy is that of the best in validation, which may be worse than that of an earlier one.
    assert found["anytime_test"].curve == {"queries": [1, 3, 5], "seconds": [40, 70, 190], "value": [99, 78, 88]}
    assert (found["anytime_valid"].value, found["anytime_test"].value, found["anytime_test"].n) == (90, 88, 5)


@pytest.mark.invariant("spos", 8)
def test_a_supernet_asks_for_its_favourites_first() -> None:
    scores = dict(zip(ARCHS, [50.0, 60.0, 70.0, 40.0], strict=True)) | {(2, 2, 2): 99.0}
    found = curves(table(), scores=scores)  # what the table does not hold is not asked for
    assert found["anytime_valid"].curve == {"queries": [1, 2, 4], "value": [75, 80, 90]}
    assert found["anytime_test"].curve == {"queries": [1, 2, 4], "value": [99, 78, 88]}
    assert found["anytime_valid"].subset == "some"


def test_no_curve_without_truth_or_validation() -> None:
    assert curves(None, scores=dict.fromkeys(ARCHS, 1.0)) == curves(table(valid=False), ARCHS) == curves(table()) == {}


@given(st.lists(st.floats(0, 100), min_size=1))
def test_a_staircase_rises_from_the_first_value_to_the_best(values: list[float]) -> None:
    steps = improvements(values)
    assert steps[0] == 0
    assert values[steps[-1]] == max(values)
    assert all(values[i] == max(values[: i + 1]) for i in steps)
    best = [values[max(s for s in steps if s <= i)] for i in range(len(values))]
    assert best == list(np.maximum.accumulate(values))


@pytest.mark.invariant("random-search", 6)
@pytest.mark.invariant("regularized-evolution", 8)
@pytest.mark.parametrize(
    ("method", "n"), [("random-search", 27), ("regularized-evolution[cycles=40]", 40), ("spos", 27)]
)
def test_the_record_holds_the_curve(run_tiny: RunTiny, method: str, n: int) -> None:
    record = run_tiny(method)
    assert json.loads(records.dumps(record)) == record
    valid, test = (records.metric(record, f"anytime_{split}") for split in ("valid", "test"))
    assert valid
    assert test
    assert valid["n"] == n
    assert len(valid["curve"]["queries"]) == len(valid["curve"]["value"]) < 15
    assert valid["curve"]["value"] == sorted(valid["curve"]["value"])
    assert Metric.model_validate(valid).curve == valid["curve"]
    if method != "spos":  # what a search found is what it chose
        assert test["value"] == records.metric(record, "top1")["value"]  # type: ignore[index]
    assert "curve" not in (records.metric(record, "params") or {})


def test_a_table_keeps_its_training_times(tmp_path: Path) -> None:
    table(timed=True).save(tmp_path / "t.safetensors")
    back = Table.load(tmp_path / "t.safetensors", SPACE)
    assert back.training_seconds([ARCHS[3], ARCHS[0]], "d") == [80, 10]
    table().save(tmp_path / "t.safetensors")
    assert Table.load(tmp_path / "t.safetensors", SPACE).seconds == {}
