"""CTNAS: which of two architectures is better, by hand, and a search that asks only that."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from nasbench_cells.nb201 import NB201
from nasbench_predictors.comparator import Comparator, graph
from nasbench_predictors.ctnas import CTNAS
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, BadInput, hookimpl
from nasbench.harness import prepare
from nasbench.recipe import parse_set, resolve
from nasbench.records import metric
from nasbench.tables import Table
from tests.conftest import RunTiny

A, B, C = (0, 0, 0), (1, 1, 1), (2, 2, 2)


class Watch:
    """Keeps the run."""

    @hookimpl
    def run_started(self, run: Any) -> None:
        self.run = run


class Fixed:
    """A comparator with given logits for A, B and C."""

    LOGITS = torch.tensor([[0.0, 1.0, -3.0], [-1.0, 0.0, -2.0], [3.0, 2.0, 0.0]])

    def __call__(self, archs: list[Arch], others: list[Arch]) -> torch.Tensor:
        return self.LOGITS[[a[0] for a in archs]][:, [b[0] for b in others]]


def with_fixed_comparator(**options: Any) -> CTNAS:
    method = CTNAS(**options)
    object.__setattr__(method, "__pydantic_private__", {"_comparator": Fixed(), "_controller": None})
    return method


@pytest.mark.invariant("ctnas", 1)
def test_the_graph_of_a_cell_and_of_layers() -> None:
    # In the cell of nb201, 1<-0 feeds 2<-1 and 3<-1, 2<-0 and 2<-1 feed 3<-2; 3<-0 stands alone.
    a = graph(list(NB201().choices))
    names = list(NB201().choices)
    ends = {(names[i], names[j]) for i, j in (a > 0).nonzero().tolist() if i < j}
    assert ends == {("1<-0", "2<-1"), ("1<-0", "3<-1"), ("2<-0", "3<-2"), ("2<-1", "3<-2")}
    s, t = 1 / math.sqrt(6), 1 / 3
    assert torch.allclose(graph(["x", "y", "z"]), torch.tensor([[0.5, s, 0], [s, t, s], [0, s, 0.5]]))


@pytest.mark.invariant("ctnas", 2)
def test_the_comparator_by_hand() -> None:
    comparator = Comparator(Tiny(), width=1, layers=1)
    comparator.embedding.weight.data = torch.tensor([[1.0], [2.0], [4.0]])
    comparator.layers[0].weight.data, comparator.layers[0].bias.data = torch.tensor([[3.0]]), torch.tensor([-1.0])
    comparator.first.weight.data, comparator.first.bias.data = torch.tensor([[1.0, 10, 100]]), torch.tensor([0.5])
    comparator.second.weight.data = torch.tensor([[-1.0, 0, 0]])
    s = 1 / math.sqrt(6)
    z = [
        [3 * (x / 2 + y * s) - 1, 3 * (x * s + y / 3 + w * s) - 1, 3 * (y * s + w / 2) - 1]
        for x, y, w in ((1, 2, 4), (4, 4, 1))
    ]
    expected = [[a[0] + 10 * a[1] + 100 * a[2] + 0.5 - b[0] for b in z] for a in z]
    logits = comparator([(0, 1, 2), (2, 2, 0)], [(0, 1, 2), (2, 2, 0)])
    assert logits.tolist() == [pytest.approx(row, rel=1e-5) for row in expected]


@pytest.mark.invariant("ctnas", 3)
def test_the_comparator_learns_the_order(run_tiny: RunTiny) -> None:
    table = Tiny().ground_truth("digits")
    assert table is not None
    archs = table.architectures()
    accuracies = torch.tensor(table.query(archs, "valid", "digits"))
    torch.manual_seed(0)
    method = CTNAS(width=32, layers=2)
    method._comparator = Comparator(Tiny(), 32, 2)
    adam = method.adam(method._comparator, 1e-2)
    for _ in range(150):
        method.compare(adam, archs, accuracies, [])
    with torch.no_grad():
        right = (method._comparator(archs, archs) > 0) == (accuracies[:, None] > accuracies)
    pairs = ~torch.eye(27, dtype=torch.bool)
    assert float(right[pairs].float().mean()) > 0.9


@pytest.mark.invariant("ctnas", 4)
def test_the_baseline_becomes_who_most_probably_wins() -> None:
    # Against the two others: A 0.731 + 0.047, B 0.269 + 0.119, C 0.953 + 0.881.
    assert with_fixed_comparator().best([A, B, C]) == C
    assert with_fixed_comparator().best([A, B]) == A
    assert with_fixed_comparator().best([B]) == B


@pytest.mark.invariant("ctnas", 5)
def test_the_surest_answers_become_labels() -> None:
    # Logits 3 and -3 are the surest, then 2 and -2.
    assert with_fixed_comparator().surest([A, B, C]) == [(A, C, 0.0), (C, A, 1.0), (B, C, 0.0)]
    assert with_fixed_comparator().surest([A]) == []


@pytest.mark.invariant("ctnas", 6)
def test_pairs_that_it_labelled_weigh_as_much_as_is_set() -> None:
    def loss(**options: Any) -> float:
        torch.manual_seed(1)
        method, seen = CTNAS(**options), list[float]()
        method._comparator = Comparator(Tiny(), 4, 1)
        sgd = torch.optim.SGD(method._comparator.parameters(), 1.0)
        before = [p.detach().clone() for p in method._comparator.parameters()]
        method.compare(sgd, [A, B], torch.tensor([1.0, 2.0]), [(A, C, 1.0)])
        seen += [
            float((p.detach() - q).abs().sum()) for p, q in zip(method._comparator.parameters(), before, strict=True)
        ]
        return sum(seen)

    assert len({loss(pseudo_ratio=ratio) for ratio in (0.0, 1.0, 2.0)}) == 3


@pytest.mark.invariant("ctnas", 7)
def test_look_ups_are_counted_and_the_pick_is_the_last(run_tiny: RunTiny) -> None:
    watch = Watch()
    record = run_tiny("ctnas[labelled=9]", observers=[watch])
    assert len(watch.run.queries) == 10
    assert len(set(watch.run.queries[:9])) == 9
    curve, top1 = metric(record, "anytime_valid"), metric(record, "top1")
    assert curve is not None
    assert top1 is not None
    assert curve["n"] == 10
    assert record["results"][0]["arch"] == Tiny().format(watch.run.queries[-1])
    assert top1["selected_on"] == "a comparator of 9 queries' validation top-1 in the table"


@pytest.mark.invariant("ctnas", 8)
def test_the_policy_comes_to_what_the_comparator_prefers(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sure(Comparator):
        def forward(self, archs: list[Arch], others: list[Arch]) -> torch.Tensor:
            worth = [torch.tensor([float(2 * a.count(2)) for a in some]) for some in (archs, others)]
            return worth[0][:, None] - worth[1] + 0 * super().forward(archs, others)

    monkeypatch.setattr("nasbench_predictors.ctnas.Comparator", Sure)
    record = run_tiny("ctnas[comparator_steps=1,iterations=300,period=50,controller_lr=0.01,controller_size=8]")
    assert record["results"][0]["arch"] == Tiny().format(C)


@pytest.mark.invariant("ctnas", 9)
def test_the_search_stays_inside_the_table(run_tiny: RunTiny) -> None:
    watch = Watch()
    run_tiny("ctnas", space="nb201", observers=[watch])
    table: Table = watch.run.truth
    assert len(table) < NB201().size
    assert all(arch in table for arch in watch.run.queries)


def test_without_a_table_it_is_refused(tmp_path: Any) -> None:
    with pytest.raises(BadInput, match=r"ctnas.* looks results up; nb201 has no ground truth for cifar10"):
        prepare(resolve("ctnas", "nb201", target="cifar10", sets=parse_set(["score.subset=all"])), tmp_path)
