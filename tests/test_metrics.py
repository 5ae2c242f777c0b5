"""The arithmetic behind every number, against definitions and against scipy; and every doctest."""

from __future__ import annotations

import doctest
import importlib
import math
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nasbench.metrics import (
    accuracy_density,
    best_rank_at,
    complexity_bias_inferred,
    complexity_convergence_inferred,
    kendall_tau,
    mean_interval,
    precision_at,
    regret,
    spearman,
    tau_interval,
)

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(top).with_suffix("").parts)
    for top in (ROOT, ROOT / "plugins", ROOT / "search_spaces")
    for path in sorted(top.glob("nasbench*/**/*.py"))
    if ">>> " in path.read_text()
]

few_values = st.integers(0, 4).map(float)  # so that there are ties
pairs = st.lists(st.tuples(few_values, few_values), min_size=2, max_size=12)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted
    assert not result.failed


def tau_b(x: list[float], y: list[float]) -> float | None:
    """Kendall (1945), by its definition: concordant minus discordant, over pairs that are untied in x and in y."""
    sign = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in combinations(range(len(x)), 2)]
    untied = math.prod(sum(s[k] != 0 for s in sign) for k in (0, 1))
    return float(sum(a * b for a, b in sign) / math.sqrt(untied)) if untied else None


@given(pairs)
def test_tau_is_kendalls_tau_b(values: list[tuple[float, float]]) -> None:
    x, y = map(list, zip(*values, strict=True))
    tau, expected = kendall_tau(x, y), tau_b(x, y)
    assert (tau is None) == (expected is None)
    if tau is not None:
        assert tau == pytest.approx(expected, abs=1e-12)
        assert tau == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
        assert tau == pytest.approx(kendall_tau(y, x), abs=1e-12)
        assert tau == pytest.approx(-kendall_tau(x, [-v for v in y]), abs=1e-12)  # type: ignore[operator]
        assert tau == pytest.approx(kendall_tau([math.exp(v) for v in x], y), abs=1e-12)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30, unique=True))
def test_the_same_order_is_one_the_reversed_minus_one(x: list[float]) -> None:
    assert kendall_tau(x, x) == pytest.approx(1, abs=1e-12)
    assert kendall_tau(x, [-v for v in x]) == pytest.approx(-1, abs=1e-12)
    assert spearman(x, x) == pytest.approx(1, abs=1e-12)


def test_ties_are_neither_right_nor_wrong() -> None:
    assert kendall_tau([1, 1, 2, 2], [1, 2, 3, 4]) == pytest.approx(4 / math.sqrt(4 * 6))
    assert kendall_tau([1, 1, 2], [5, 5, 6]) == pytest.approx(1)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1], [1]), ([1, 1], [1, 2]), ([1, 2], [3, 3]), ([2, 2, 2], [7, 7, 7])])
def test_what_is_undefined_is_none(x: list[float], y: list[float]) -> None:
    assert kendall_tau(x, y) is None
    assert spearman(x, y) is None


def test_rankings_of_unequal_length_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="3 and 2 values"):
        kendall_tau([1, 2, 3], [1, 2])


def test_the_interval_of_tau_is_seeded_and_holds_it() -> None:
    rng = random.Random(0)
    x = [rng.random() for _ in range(60)]
    y = [v + rng.random() for v in x]
    tau, (low, high) = kendall_tau(x, y), tau_interval(x, y) or (0, 0)
    assert tau is not None
    assert -1 <= low < tau < high <= 1
    assert tau_interval(x, y) == (low, high) != tau_interval(x, y, seed=1)
    wider = tau_interval(x[:15], y[:15]) or (0, 0)
    assert wider[1] - wider[0] > high - low


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered, rng = 0, np.random.default_rng(0)
    truth = 2 / math.pi * math.asin(0.5)  # tau of a normal pair correlated by 0.5
    for _ in range(60):
        x = rng.standard_normal(60)
        y = 0.5 * x + math.sqrt(0.75) * rng.standard_normal(60)
        low, high = tau_interval(x.tolist(), y.tolist(), resamples=100) or (1, -1)
        covered += low <= truth <= high
    assert 0.85 <= covered / 60 <= 1


def test_no_interval_of_what_has_no_tau() -> None:
    assert tau_interval([1.0] * 5, [1.0, 2, 3, 4, 5]) is None


@given(st.lists(st.integers(-1000, 1000).map(lambda v: v / 10), min_size=3, max_size=9))
def test_the_interval_of_a_mean_is_students(values: list[float]) -> None:
    low, high = mean_interval(values) or (0, 0)
    if len(set(values)) > 1:
        expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (low, high) == pytest.approx(expected, abs=1e-9)
    assert low <= np.mean(values) + 1e-9
    assert high >= np.mean(values) - 1e-9


def test_fewer_than_three_values_have_no_interval() -> None:
    assert mean_interval([1.0, 2.0]) is None
    assert mean_interval([1.0]) is None
    assert mean_interval([]) is None


@given(pairs)
def test_spearman_is_pearson_of_the_ranks(values: list[tuple[float, float]]) -> None:
    x, y = map(list, zip(*values, strict=True))
    rho = spearman(x, y)
    if rho is not None:
        assert rho == pytest.approx(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1], abs=1e-12)


def test_precision_and_best_rank_look_at_the_top() -> None:
    scores, truth = [9.0, 8, 7, 6, 5], [1.0, 3, 5, 2, 4]
    assert [precision_at(k, scores, truth) for k in (1, 2, 3, 5)] == [0, 0, pytest.approx(2 / 3), 1]
    assert [best_rank_at(k, scores, truth) for k in (1, 2, 3, 5)] == [5, 3, 1, 1]
    assert precision_at(6, scores, truth) is None
    assert best_rank_at(6, scores, truth) is None


def test_inferred_complexity_measures() -> None:
    size, truth = [1.0, 2, 3, 4], [1.0, 2, 3, 4]
    assert complexity_bias_inferred(size, truth, truth) is None  # nothing is ordered wrongly
    assert complexity_bias_inferred(size, [4, 3, 2, 1], truth) == 1
    assert complexity_bias_inferred([4, 3, 2, 1], [4, 3, 2, 1], truth) == 0
    assert complexity_bias_inferred([1, 2, 2, 1], [4, 3, 2, 1], truth) == 0.5
    assert complexity_convergence_inferred(size, [1, 4, 9, 16], truth) == pytest.approx(1)
    assert complexity_convergence_inferred(size, [2, 4, 6, 8], truth) is None  # all have come equally far


def test_density_and_regret() -> None:
    assert accuracy_density(94.37, 1_531_546) == pytest.approx(61.6175, abs=1e-4)
    assert regret(94.37, 94.37) == 0
    assert regret(94.37, 93.0) == pytest.approx(1.37)
