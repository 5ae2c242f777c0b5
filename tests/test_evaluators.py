"""What the built-in evaluators report: exact numbers on small cases, and null where there is no number."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nasbench_cells.nb201 import NB201
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, BadInput, Choice, Evaluator, Method, Run, SearchSpace, hookimpl, records
from nasbench.evaluators import Pick, Ranking
from nasbench.metrics import (
    best_rank_at,
    complexity_bias_inferred,
    complexity_convergence_inferred,
    kendall_tau,
    precision_at,
    spearman,
)
from nasbench.records import Metric
from nasbench.results import report
from nasbench.results.leaderboard import render_all
from nasbench.tables import Column, Table
from tests.conftest import Install, RunTiny

#: Of tiny in order of size: 1184, 1440, 1696 and 1952 weights.
SIZES = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)]
#: The numbers that say how well scores rank, all of them.
RANKING = {
    "kendall_tau",
    "params_tau",
    "kendall_tau_reduced",
    "spearman",
    "precision_at_10",
    "best_rank_at_10",
    "complexity_bias_inferred",
    "complexity_convergence_inferred",
}


def table(space: SearchSpace, test: dict[Arch, float], valid: dict[Arch, float] | None = None) -> Table:
    """A table of these accuracies on `d`."""
    rows = sorted(test, key=space.number)
    columns = {Column("d", "test", 9, "mean"): np.array([test[arch] for arch in rows])}
    if valid:
        columns[Column("d", "valid", 9, "mean")] = np.array([valid[arch] for arch in rows])
    return Table("t", space, np.array([space.number(arch) for arch in rows]), columns)


def elsewhere(found: Table, dataset: str, test: dict[Arch, float]) -> Table:
    """The same table with test accuracies on another dataset."""
    there = np.array([test[found.space.from_number(int(n))] for n in found.numbers])
    return replace(found, columns={**found.columns, Column(dataset, "test", 9, "mean"): there})


def run(scores: dict[Arch, float], truth: Table | None, space: SearchSpace) -> Any:
    """What an evaluator asks a run for."""
    recipe = SimpleNamespace(target="d", score=SimpleNamespace(subset="some"))
    return SimpleNamespace(scores=scores, truth=truth, space=space, recipe=recipe)


Rank = Callable[..., "dict[str, Metric]"]


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Rank:
    """`rank({arch: score}, {arch: true accuracy})` gives Ranking's metrics by name, without bootstrapping."""
    monkeypatch.setattr("nasbench.evaluators.tau_interval", lambda *_: None)

    def rank_(scores: dict[Arch, float], test: dict[Arch, float] | None, space: SearchSpace | None = None) -> Any:
        space = space or Tiny(image=(1, 8, 8))
        found = Ranking().evaluate(run(scores, table(space, test) if test else None, space), [])
        assert {m.name for m in found} in (RANKING, set())
        return {m.name: m for m in found}

    return rank_


# ---------------------------------------------------------------------- the ranking


def test_every_number_of_a_ranking_of_four(rank: Rank) -> None:
    assert [Tiny(image=(1, 8, 8)).cost(a)["conv_weights"] for a in SIZES] == [1184, 1440, 1696, 1952]
    found = rank(dict(zip(SIZES, [40, 30, 20, 60], strict=True)), dict(zip(SIZES, [50, 60, 80, 70], strict=True)))
    # Of the six pairs, (0,1), (0,2), (1,2) and (2,3) are ordered against the truth, all but the last for the smaller.
    assert found["kendall_tau"].value == pytest.approx((2 - 4) / 6)
    assert found["complexity_bias_inferred"].value == 3 / 4
    assert found["params_tau"].value == pytest.approx((5 - 1) / 6)
    assert found["kendall_tau_reduced"].value == pytest.approx((2 - 4) / 6)  # on tiny no two compute the same
    # Ranks 3, 2, 1, 4 against 1, 2, 4, 3: the squared differences add up to 14.
    assert found["spearman"].value == pytest.approx(1 - 6 * 14 / (4 * 15))
    # Shares reached: 0.8, 0.5, 0.25 and 0.86.
    assert found["complexity_convergence_inferred"].value == pytest.approx((3 - 3) / 6)
    assert {m.n for m in found.values()} == {4}
    assert {(m.dataset, m.split, m.subset) for m in found.values()} == {("d", "test", "some")}


def test_the_top_ten_of_twelve(rank: Rank) -> None:
    archs = list(Tiny().architectures())[:12]
    up, shifted = ({a: float(10 + (i + by) % 12) for i, a in enumerate(archs)} for by in (0, 2))
    found = rank(shifted, up)  # the two truly best are scored last
    assert found["precision_at_10"].value == 0.8
    assert found["best_rank_at_10"].value == 3
    assert rank(up, up)["precision_at_10"].value == 1
    assert rank(up, up)["best_rank_at_10"].value == 1


def test_fewer_than_ten_have_no_top_ten(rank: Rank) -> None:
    found = rank(dict(zip(SIZES, [1, 2, 3, 4], strict=True)), dict(zip(SIZES, [1, 2, 3, 4], strict=True)))
    assert found["precision_at_10"].value is found["best_rank_at_10"].value is None
    assert found["kendall_tau"].value == 1


def test_scores_that_tell_nothing_apart_have_no_correlation(rank: Rank) -> None:
    archs = list(Tiny().architectures())
    found = rank(dict.fromkeys(archs, 10.0), {a: float(i + 1) for i, a in enumerate(archs)})
    for name in ("kendall_tau", "kendall_tau_reduced", "spearman", "complexity_bias_inferred"):
        assert found[name].value is None
    assert found["params_tau"].value is not None
    # Of equal scores the earlier counts as better: here the truly worst ten.
    assert (found["precision_at_10"].value, found["best_rank_at_10"].value) == (0, 18)


def test_a_constant_truth_has_none_either(rank: Rank) -> None:
    found = rank(dict(zip(SIZES, [4, 3, 2, 1], strict=True)), dict.fromkeys(SIZES, 50.0))
    for name in ("kendall_tau", "params_tau", "kendall_tau_reduced", "spearman", "complexity_bias_inferred"):
        assert found[name].value is None
    assert found["complexity_convergence_inferred"].value == -1


def test_ties_are_tau_b(rank: Rank) -> None:
    found = rank(dict(zip(SIZES, [1, 1, 2, 3], strict=True)), dict(zip(SIZES, [1, 2, 2, 3], strict=True)))
    assert found["kendall_tau"].value == pytest.approx(4 / math.sqrt(5 * 5))


def test_architectures_that_compute_the_same_count_as_one(rank: Rank) -> None:
    none, same, conv, pool = (0,) * 6, (3, 0, 0, 0, 0, 0), (0, 0, 0, 3, 0, 0), (0, 0, 0, 4, 0, 0)
    space = NB201()
    assert space.canonical(none) == space.canonical(same) != space.canonical(conv)  # an edge that leads nowhere
    scores = {none: 10.0, same: 80.0, conv: 50.0, pool: 30.0}
    true = {none: 10.0, same: 10.0, conv: 90.0, pool: 60.0}
    found = rank(scores, true, space)
    # By their means 45, 50 and 30, against 10, 90 and 60, one of the three pairs of classes is wrong.
    assert (found["kendall_tau_reduced"].value, found["kendall_tau_reduced"].n) == (pytest.approx((2 - 1) / 3), 3)
    assert (found["kendall_tau"].value, found["kendall_tau"].n) == (pytest.approx((3 - 2) / math.sqrt(6 * 5)), 4)


def test_only_what_the_table_holds_is_ranked(rank: Rank) -> None:
    scores = dict(zip(SIZES, [1.0, 2, 3, 4], strict=True))
    found = rank(scores, dict(zip(SIZES[:3], [3.0, 2, 1], strict=True)))
    assert (found["kendall_tau"].value, found["kendall_tau"].n) == (-1, 3)
    empty = rank(scores, {(2, 2, 2): 50.0})
    assert {(m.value, m.n) for m in empty.values()} == {(None, 0)}


def test_without_scores_or_without_truth_nothing_is_ranked(rank: Rank) -> None:
    assert rank({}, dict.fromkeys(SIZES, 1.0)) == {}
    assert rank(dict.fromkeys(SIZES, 1.0), None) == {}


def test_the_complexity_of_an_architecture_is_that_of_the_network_in_the_table() -> None:
    """In a supernet of another width the two may be equally complex."""
    linear, bottleneck = (1, 1, 0), (2, 2, 0)
    wide, narrow = Tiny(width=16), Tiny(width=3)
    assert wide.cost(linear)["conv_weights"] == wide.cost(bottleneck)["conv_weights"]
    assert narrow.cost(linear)["conv_weights"] > narrow.cost(bottleneck)["conv_weights"]
    truth = table(narrow, {linear: 1.0, bottleneck: 2.0})
    found = Ranking().evaluate(run({linear: 2.0, bottleneck: 1.0}, truth, wide), [])
    assert {m.name: m.value for m in found}["complexity_bias_inferred"] == 0  # it preferred the larger


def test_both_taus_come_with_an_interval() -> None:
    archs = list(Tiny().architectures())
    scores = {a: float(i) for i, a in enumerate(archs)}
    truth = table(Tiny(), {a: float(i % 20) for i, a in enumerate(archs)})
    found = {m.name: m for m in Ranking().evaluate(run(scores, truth, Tiny()), [])}
    for name in ("kendall_tau", "params_tau"):
        metric = found[name]
        assert metric.low is not None
        assert metric.high is not None
        assert metric.value is not None
        assert -1 <= metric.low < metric.value < metric.high <= 1
    assert found["spearman"].low is found["kendall_tau_reduced"].low is None


# ---------------------------------------------------------------------- the arithmetic where it is delicate


def test_of_equal_scores_the_earlier_is_better() -> None:
    assert precision_at(1, [5, 5, 5], [1, 2, 3]) == 0
    assert precision_at(2, [5, 5, 4], [3, 3, 3]) == 1
    assert best_rank_at(1, [5, 5, 5], [1, 2, 3]) == 3
    assert best_rank_at(2, [5, 5, 5], [3, 3, 1]) == 1  # two share the first rank
    assert best_rank_at(1, [1, 2], [7, 7]) == 1


def test_pairs_that_are_tied_contradict_nothing() -> None:
    assert complexity_bias_inferred([1, 2], [5, 5], [1, 2]) is None
    assert complexity_bias_inferred([1, 2], [2, 1], [5, 5]) is None
    assert complexity_bias_inferred([1, 1], [2, 1], [1, 2]) is None
    assert complexity_bias_inferred([1, 2, 2], [3, 2, 1], [1, 2, 3]) == 1  # the third pair is equally complex
    assert complexity_bias_inferred([], [], []) is None


def test_the_share_of_an_accuracy_of_zero_is_undefined() -> None:
    assert complexity_convergence_inferred([1, 2, 3], [1, 2, 3], [0, 1, 2]) is None
    assert complexity_convergence_inferred([1, 1, 1], [1, 2, 3], [1, 1, 1]) is None
    assert complexity_convergence_inferred([1, 2, 3], [10, 40, 90], [10, 20, 30]) == 1


def test_what_is_no_number_correlates_with_nothing() -> None:
    assert kendall_tau([1, math.nan, 3], [1, 2, 3]) is None
    assert spearman([1, math.nan, 3], [1, 2, 3]) is None


def test_the_same_scores_are_ranked_against_the_table_s_other_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasbench.evaluators.tau_interval", lambda *_: None)
    space = Tiny(image=(1, 8, 8))
    scores, here, there = (dict(zip(SIZES, v, strict=True)) for v in ([40, 30, 20, 60], [50, 60, 80, 70], [5, 4, 3, 9]))
    truth = elsewhere(table(space, here), "e", there)
    found = {m.name: m for m in Ranking().evaluate(run(scores, truth, space), [])}
    assert found.keys() == RANKING | {"kendall_tau.e", "params_tau.e"}
    assert (found["kendall_tau.e"].value, found["params_tau.e"].value) == (1, 0)  # 3 pairs each way
    assert (found["kendall_tau"].value, found["kendall_tau"].dataset) == (pytest.approx(-1 / 3), "d")
    assert {(m.dataset, m.n) for name, m in found.items() if name.endswith(".e")} == {("e", 4)}
    (top1,) = (m for m in Pick().evaluate(run({}, truth, space), [Choice(SIZES[2])]) if m.name == "top1.e")
    assert (top1.value, top1.dataset, top1.unit) == (3, "e", "%")


# ---------------------------------------------------------------------- the pick


def pick(choices: list[Arch], truth: Table | None) -> list[dict[str, Metric]]:
    found = Pick().evaluate(run({}, truth, Tiny(image=(1, 8, 8))), [Choice(a, selected_on="luck") for a in choices])
    return [{m.name: m for m in found if m.choice == i} for i in range(len(choices))]


def test_every_number_of_a_pick() -> None:
    at = Tiny(image=(1, 8, 8))
    (found,) = pick([(1, 0, 0)], table(at, dict(zip(SIZES, [50.0, 60, 80, 70], strict=True))))
    params = sum(p.numel() for p in at.build((1, 0, 0)).parameters())
    assert {name: m.value for name, m in found.items()} == {
        "params": params,
        "madds": 1440,
        "top1": 60,
        "regret": 20,
        "accuracy_density": pytest.approx(60 / params * 1e6),
    }
    assert {m.selected_on for m in found.values() if m.unit} == {"luck"}
    assert [found[name].unit for name in ("top1", "regret", "accuracy_density")] == ["%", "%", "%/M"]


def test_several_picks_are_told_apart() -> None:
    first, second = pick([SIZES[3], SIZES[2]], table(Tiny(image=(1, 8, 8)), dict.fromkeys(SIZES[:3], 50.0)))
    assert set(first) == {"params", "madds"}  # the table does not hold it
    assert (second["top1"].value, second["regret"].value) == (50, 0)


def test_without_truth_a_pick_has_its_costs() -> None:
    (found,) = pick([(0, 0, 0)], None)
    assert {name: m.value for name, m in found.items()} == {"params": 1210, "madds": 1184}


def test_costs_are_those_of_the_network_in_the_table() -> None:
    """The supernet may be narrower than what was trained alone."""
    (found,) = pick([(0, 0, 0)], table(Tiny(image=(1, 8, 8), width=4), {(0, 0, 0): 50.0, (1, 1, 1): 60.0}))
    assert found["madds"].value == 64 * 4 + 4 * 10


# ---------------------------------------------------------------------- in a record


class Constant(Method):
    """A supernet that tells nothing apart."""

    @hookimpl
    def train(self) -> bool:
        return True

    @hookimpl
    def score(self, archs: list[Arch]) -> list[float]:
        return [10.0 for _ in archs]


@pytest.mark.parametrize("place", [{"value": math.nan}, {"value": 1.0, "curve": {"x": [1.0, math.inf]}}])
def test_a_number_that_json_cannot_hold_is_named(run_tiny: RunTiny, place: dict[str, Any]) -> None:
    class Careless:
        @hookimpl
        def evaluate(self) -> list[Metric]:
            return [Metric(name="careless", definition="", **place)]

    with pytest.raises(BadInput, match="metric 'careless' holds NaN or infinity"):
        run_tiny("random-search", observers=[Careless()])


def test_what_is_undefined_is_null_in_the_record(run_tiny: RunTiny, install: Install) -> None:
    install("constant", methods={"constant": "tests.test_evaluators:Constant"})
    record = json.loads(json.dumps(run_tiny("constant"), allow_nan=False))
    values = {m["name"]: m["value"] for m in record["results"][0]["metrics"]}
    undefined = {"kendall_tau", "kendall_tau_reduced", "spearman", "complexity_bias_inferred"}
    assert {name for name, value in values.items() if value is None} == undefined
    assert set(values) > RANKING
    assert values["params_tau"] is not None


class Half(Evaluator):
    """Reports what it was told."""

    share: float = 0.5
    """What it reports."""

    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        return [Metric(name="half", value=self.share, definition="what it was told")]


def test_an_option_of_an_evaluator_is_set_and_recorded_where_it_is_not_the_usual(
    run_tiny: RunTiny, install: Install
) -> None:
    before = run_tiny("random-search")
    install("acme", evaluators={"half": "tests.test_evaluators:Half"})
    usual, other = (run_tiny("random-search", sets, force=True) for sets in ("half.share=0.5", "half.share=0.75"))
    values = [records.metric(record, "half") for record in (before, usual, other)]
    assert [None if value is None else value["value"] for value in values] == [None, 0.5, 0.75]
    assert before["id"] == usual["id"] != other["id"]
    assert (usual["recipe"]["options"].get("half"), other["recipe"]["options"]["half"]) == (None, {"share": 0.75})
    assert "--set half.share=0.75" in report.command(other)
    with pytest.raises(BadInput, match=r"Unknown option 'half\.shar'; did you mean 'half\.share'\?"):
        run_tiny("random-search", "half.shar=1")
    shown = render_all([("a", usual), ("b", other)], "csv", more=["half"]).splitlines()
    rows = {row["method"]: row["half"] for row in csv.DictReader(shown)}
    assert rows == {"random-search": "0.500", "random-search, options.half.share=0.75": "0.750"}
    with pytest.raises(BadInput, match="Unknown metric 'hafl'; did you mean 'half'"):
        render_all([("a", usual)], more=["hafl"])
