"""Which differences between rows hold: paired, and corrected for how many are looked at."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nasbench.results.differences import holm, note, paired_p, pairs
from nasbench.results.leaderboard import tables
from tests.boards import made, result
from tests.conftest import Record


def rows(**values: list[float]) -> list[dict[str, object]]:
    """The rows of a table in which these methods have these taus, seed by seed."""
    found = [made(method, tau, seed=seed) for method, taus in values.items() for seed, tau in enumerate(taus)]
    (table,) = tables([(str(i), record) for i, record in enumerate(found)]).values()
    return table


def test_the_test_is_the_paired_one() -> None:
    a, b = [0.5, 0.61, 0.7], [0.4, 0.45, 0.6]
    assert paired_p([x - y for x, y in zip(a, b, strict=True)]) == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_without_spread_it_is_the_sign_test() -> None:
    assert paired_p([0.0, 0.0]) == 1.0
    for n in (2, 3, 6):  # the last difference is the others' but for rounding
        differences = [*([0.1] * (n - 1)), 0.3 - 0.2]
        assert paired_p(differences) == stats.binomtest(n, n).pvalue
    assert note(rows(spos=[0.5, 0.6, 0.7], fairnas=[0.25, 0.35, 0.45]))[0].startswith("No difference")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_the_plain_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert all(adjusted[i] <= adjusted[j] for i, j in itertools.pairwise(order))
    assert all(
        one <= new <= min(1.0, len(p) * one) or new == pytest.approx(one) for one, new in zip(p, adjusted, strict=True)
    )
    assert adjusted[order[0]] == pytest.approx(min(1.0, len(p) * p[order[0]]))


def test_what_is_far_apart_seed_by_seed_holds() -> None:
    table = rows(spos=[0.50, 0.60, 0.40, 0.55], fairnas=[0.30, 0.401, 0.199, 0.35], fsnas=[0.5, 0.2, 0.7, 0.1])
    assert len(pairs(table)) == 3
    assert note(table) == [
        "Differences in Kendall's tau that hold (paired by seed, t-test with Holm's correction for 3 pairs, 5 %): "
        "spos above fairnas. No other does."
    ]


def test_the_correction_takes_back_what_chance_may_have_found() -> None:
    values = {"spos": [0.50, 0.52, 0.56], "fairnas": [0.40, 0.41, 0.40]}
    (alone,) = pairs(rows(**values))
    assert 0.017 < alone.p < 0.05
    assert "spos above fairnas" in note(rows(**values))[0]
    assert note(rows(**values, fsnas=[0.5, 0.2, 0.7])) == [
        "No difference in Kendall's tau between two rows holds "
        "(paired by seed, t-test with Holm's correction for 3 pairs, 5 %)."
    ]


def test_two_seeds_say_nothing() -> None:
    assert note(rows(spos=[0.5, 0.6], fairnas=[0.4, 0.5])) == [
        "No two rows have three seeds in common: nothing is said of their differences."
    ]
    assert note(rows(spos=[0.5, 0.4])) == []


def test_scenarios_are_kept_apart() -> None:
    def budgets(method: str, seed: int, *top1s: float) -> Record:
        results = [result({"budget": f"keep={keep}"}, top1=top1) for keep, top1 in zip((0.3, 0.5), top1s, strict=True)]
        return made(method, seed=seed) | {"results": results}

    found = [budgets("spos", s, 60 + s / 10, 70) for s in range(4)]
    found += [budgets("fairnas", s, 40, 70 + (-1) ** s) for s in range(4)]
    (table,) = tables([(str(i), record) for i, record in enumerate(found)]).values()
    assert len(pairs(table)) == 2
    (sentence,) = note(table)
    assert "spos above fairnas (keep=0.3 search). No other does." in sentence
    assert "Differences in top-1" in sentence
