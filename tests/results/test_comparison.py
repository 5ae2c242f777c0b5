"""Two rows of a leaderboard, paired by seed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nasbench import BadInput
from nasbench.results.comparison import compare
from tests.boards import made, result, written
from tests.command import nasbench
from tests.conftest import Record


def against(taus: list[float | None], others: list[float | None]) -> list[tuple[str, Record]]:
    found = [made("spos+calr", tau, seed=seed) for seed, tau in enumerate(taus)]
    found += [made("spos", tau, seed=seed) for seed, tau in enumerate(others)]
    return [(f"run{i}", record) for i, record in enumerate(found)]


def test_a_comparison_is_paired_by_seed() -> None:
    (one,) = compare(against([0.5, 0.8, 0.2], [0.4, 0.6, -0.1]), "spos+calr", "spos")
    assert one.pairs == {0: (0.5, 0.4), 1: (0.8, 0.6), 2: (0.2, -0.1)}
    assert one.differences == pytest.approx([0.1, 0.2, 0.3])
    assert one.interval == pytest.approx((-0.0484, 0.4484), abs=1e-4)
    assert one.verdict == "spos+calr and spos cannot be told apart."


@pytest.mark.parametrize(
    ("taus", "verdict"),
    [
        ([0.50, 0.51, 0.52], "spos+calr is better than spos."),
        ([0.30, 0.29, 0.28], "spos+calr is worse than spos."),
        ([0.40, 0.40, 0.40], "spos+calr and spos cannot be told apart."),
        ([0.90, 0.91], "Fewer than three seeds in common: no verdict."),
    ],
)
def test_the_verdict_of_a_comparison(taus: list[float | None], verdict: str) -> None:
    (one,) = compare(against(taus, [0.4, 0.4, 0.4]), "spos+calr", "spos")
    assert one.verdict == verdict
    assert one.unpaired == list(range(len(taus), 3))


def test_differences_without_spread_have_no_interval_and_prove_nothing() -> None:
    (one,) = compare(against([0.5, 0.6, 0.7], [0.4, 0.5, 0.6]), "spos+calr", "spos")
    assert (one.interval, one.verdict) == (None, "spos+calr and spos cannot be told apart.")


def test_which_way_is_better_depends_on_the_metric() -> None:
    values = {"params": (1.0, 2.0), "top1": (1.0, 2.0), "acme_depth": (1.0, 2.0)}
    found = []
    for seed in (0, 1, 2):
        for i, method in enumerate(("spos+calr", "spos")):
            metrics = {name: v[i] + 0.02 * seed * i for name, v in values.items()}
            found.append((f"{method}{seed}", made(method, seed=seed, **metrics)))
    verdicts = {name: compare(found, "spos+calr", "spos", name)[0].verdict for name in values}
    assert verdicts == {
        "params": "spos+calr is better than spos.",
        "top1": "spos+calr is worse than spos.",
        "acme_depth": "spos+calr is lower than spos.",
    }


def test_what_is_undefined_is_not_paired() -> None:
    (one,) = compare(against([0.5, None, 0.7], [0.4, 0.4, None]), "spos+calr", "spos")
    assert (one.pairs, one.unpaired) == ({0: (0.5, 0.4)}, [1, 2])


def test_labels_are_read_as_labels_and_only_one_table_at_a_time() -> None:
    found = [made("spos+calr+ms", 0.5), made("spos"), made("spos", 0.5, "score.subset=random:9")]
    (one,) = compare([(str(i), record) for i, record in enumerate(found)], "spos+ms+calr[gamma_prime=4]", "spos")
    assert (one.a, one.key[-1]) == ("spos+calr+ms", "table")


@pytest.mark.parametrize(
    ("a", "b", "metric", "sentence"),
    [
        (
            "spos+callr",
            "spos",
            "kendall_tau",
            "Unknown method among these records 'spos+callr'; did you mean 'spos+calr'?",
        ),
        (
            "spos+calr",
            "fairnass",
            "kendall_tau",
            "Unknown method among these records 'fairnass'; did you mean 'fairnas'?",
        ),
        ("spos+calr", "spos[", "kendall_tau", "Unknown method among these records 'spos['; did you mean 'spos'?"),
        ("spos+calr", "spos", "kendal", "Unknown metric 'kendal'; did you mean 'kendall_tau'?"),
        ("spos+calr", "fairnas", "kendall_tau", "no seed in common that has a kendall_tau"),
        ("spos+calr", "spos+ms", "kendall_tau", "stand in no table together"),
    ],
)
def test_what_cannot_be_compared_is_said(a: str, b: str, metric: str, sentence: str) -> None:
    found = against([0.5], [0.4])
    found += [("x", made("fairnas", seed=7)), ("y", made("spos+ms", 0.5, "score.subset=all"))]
    with pytest.raises(BadInput, match=re.escape(sentence)):
        compare(found, a, b, metric)


def test_compare_on_the_command_line(tmp_path: Path) -> None:
    written(tmp_path / "runs", *(record for _, record in against([0.5, 0.51, 0.53, 0.6], [0.4, 0.4, 0.4])))
    shown = nasbench("compare", "spos+calr", "spos", cwd=tmp_path)
    assert (shown.code, shown.err) == (0, "")
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert lines[0] == "kendall_tau on tiny, ranked against digits (trained on digits, preset test, subset table)"
    assert lines[3:6] == ["0 0.5000 0.4000 +0.1000", "1 0.5100 0.4000 +0.1100", "2 0.5300 0.4000 +0.1300"]
    assert lines[6:] == [
        "mean difference +0.1133, 95 % interval [+0.0754, +0.1513], n = 3",
        "Only one of them has a value for seed 3.",
        "spos+calr is better than spos.",
    ]
    wrong = nasbench("compare", "spos+calr", "spos", "--metric", "top", cwd=tmp_path)
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err == "nasbench: Unknown metric 'top'; did you mean 'top1'?\n"
    assert "nasbench compare " in nasbench("compare", "--help", cwd=tmp_path).out.partition("Examples:")[2]


def test_scenarios_are_compared_one_by_one() -> None:
    def budgets(method: str, seed: int, *top1s: float) -> Record:
        results = [result({"budget": f"keep={keep}"}, top1=top1) for keep, top1 in zip((0.3, 0.5), top1s, strict=True)]
        return made(method, seed=seed) | {"results": results}

    found = [budgets("spos", s, 50 + s, 70) for s in range(3)] + [budgets("fairnas", s, 40, 70 + s) for s in range(3)]
    compared = compare([(str(i), record) for i, record in enumerate(found)], "spos", "fairnas", "top1")
    assert [(one.scenario, one.differences) for one in compared] == [
        ("keep=0.3", [10, 11, 12]),
        ("keep=0.5", [0, -1, -2]),
    ]
    assert [one.verdict for one in compared] == [
        "spos is better than fairnas.",
        "spos and fairnas cannot be told apart.",
    ]
