"""WeakNAS: random look-ups, then those that a predictor fitted to all before ranks highest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nasbench_cells.nb201 import NB201
from nasbench_predictors.table import nearest, one_hot
from nasbench_predictors.weaknas import WeakNAS
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, BadInput, hookimpl
from nasbench.harness import prepare
from nasbench.recipe import parse_set, resolve
from nasbench.records import metric
from nasbench.tables import Table
from tests.conftest import RunTiny

OPTIONS = "queries=14,initial=6,batch=3,top=5"


def truth() -> Table:
    table = Tiny().ground_truth("digits")
    assert table is not None
    return table


def valid(archs: list[Arch]) -> list[float]:
    return truth().query(archs, "valid", "digits")


class Watch:
    """Keeps the run, and forbids the table's test results while it searches."""

    @hookimpl
    def run_started(self, run: Any) -> None:
        self.run = run


def search(run_tiny: RunTiny, options: str = OPTIONS, **more: Any) -> tuple[list[Arch], dict[str, Any]]:
    watch = Watch()
    record = run_tiny(f"weaknas[{options}]", observers=[watch], **more)
    return watch.run.queries, record


class Oracle:
    """A predictor that knows the truth, upside down if asked; it writes down what it was fitted to."""

    def __init__(self, sign: float = 1.0) -> None:
        self.sign, self.fits = sign, list[tuple[int, float]]()

    def fit(self, codes: np.ndarray, accuracies: np.ndarray) -> None:
        self.fits.append((len(codes), float(accuracies.mean())))

    def predict(self, codes: np.ndarray) -> np.ndarray:
        archs = [tuple(int(row[i : i + 3].argmax()) for i in (0, 3, 6)) for row in codes]
        return self.sign * np.array(valid(archs))


@pytest.mark.invariant("weaknas", 1)
@pytest.mark.parametrize(("options", "count"), [(OPTIONS, 14), ("queries=4,initial=6", 4), ("queries=500", 27)])
def test_so_many_different_architectures_are_looked_up(run_tiny: RunTiny, options: str, count: int) -> None:
    queries, record = search(run_tiny, options + ",hidden=[4],iterations=3")
    assert len(queries) == len(set(queries)) == count
    (result,) = record["results"]
    assert result["arch"] == Tiny().format(max(queries, key=lambda arch: valid([arch])))
    top1, curve = metric(record, "top1"), metric(record, "anytime_valid")
    assert top1 is not None
    assert curve is not None
    assert top1["selected_on"] == f"validation top-1 in the table, {count} queries"
    assert curve["n"] == count


@pytest.mark.invariant("weaknas", 2)
def test_later_ones_are_new_and_of_the_highest_predicted(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle()
    monkeypatch.setattr(WeakNAS, "model", lambda self, seed: oracle)
    queries, _ = search(run_tiny)
    ranked = sorted(truth().architectures(), key=lambda arch: -valid([arch])[0])
    known = queries[:6]
    for start in (6, 9, 12):
        fresh = queries[start : start + 3]
        among = [arch for arch in ranked[:5] if arch not in known]
        among = among if len(among) >= 3 else [arch for arch in ranked if arch not in known][:3]
        assert set(fresh) <= set(among)
        known += fresh
    assert ranked[0] in queries


@pytest.mark.invariant("weaknas", 3)
def test_each_predictor_is_fitted_to_all_before_it(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle(-1.0)
    monkeypatch.setattr(WeakNAS, "model", lambda self, seed: oracle)
    search(run_tiny)
    assert [count for count, _ in oracle.fits] == [6, 9, 12]
    assert all(abs(mean) < 1e-9 for _, mean in oracle.fits)  # standardised by what is known, not by the table


@pytest.mark.invariant("weaknas", 4)
def test_the_first_are_uniform_and_the_seed_decides(run_tiny: RunTiny) -> None:
    first = [search(run_tiny, "queries=9,initial=9", seed=seed)[0] for seed in range(60)]
    counts = {arch: sum(arch in one for one in first) for arch in Tiny().architectures()}
    assert sum(counts.values()) == 540
    assert all(abs(n - 20) < 4 * 3.7 for n in counts.values())
    assert search(run_tiny, OPTIONS, runs="a")[0] == search(run_tiny, OPTIONS, runs="b")[0]


@pytest.mark.invariant("weaknas", 5)
@pytest.mark.parametrize("predictor", ["mlp", "random-forest", "boosted-trees"])
def test_a_predictor_learns_what_it_was_shown(predictor: Any) -> None:
    archs = list(Tiny().architectures())
    target = np.array([2.0 * a[0] - a[1] for a in archs])
    model = WeakNAS(predictor=predictor, hidden=[50], iterations=300).model(0)
    codes = one_hot(Tiny(), archs)
    model.fit(codes, target)
    assert np.corrcoef(model.predict(codes), target)[0, 1] > 0.95
    again = WeakNAS(predictor=predictor, hidden=[50], iterations=300).model(0)
    again.fit(codes, target)
    assert (again.predict(codes) == model.predict(codes)).all()


@pytest.mark.invariant("weaknas", 6)
def test_codes_are_one_hot() -> None:
    codes = one_hot(NB201(), [(0, 1, 2, 3, 4, 0), (4,) * 6])
    assert codes.shape == (2, 30)
    assert [int(i) for i in codes[0].nonzero()[0]] == [0, 6, 12, 18, 24, 25]
    assert (codes.sum(1) == 6).all()
    assert len({tuple(row) for row in one_hot(Tiny(), list(Tiny().architectures()))}) == 27


def test_the_nearest_of_a_pool() -> None:
    pool = np.array([(0, 0, 0), (1, 2, 0), (1, 2, 2)])
    assert nearest(pool, (1, 2, 1)) == (1, 2, 0)
    assert nearest(pool, (1, 2, 2)) == (1, 2, 2)


def test_without_a_table_it_is_refused(tmp_path: Any) -> None:
    sets = parse_set(["score.subset=all"])
    with pytest.raises(BadInput, match=r"weaknas.* looks results up; nb201 has no ground truth for cifar10"):
        prepare(resolve("weaknas", "nb201", target="cifar10", sets=sets), tmp_path)
