"""P-DARTS: depth grows and operations go from stage to stage, dropout on skips falls, few skips are left."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from nasbench_cells.darts import EDGES, OPERATIONS
from nasbench_differentiable.p_darts import PDARTS, strongest, without
from torch import nn

from nasbench import BadInput
from nasbench.recipe import resolve
from tests.nasbench_differentiable.conftest import Train, Trained

SKIP = OPERATIONS.index("skip_connect")
SMALL = {"cells": 3, "channels": 2}


def parts(trained: Trained) -> list[tuple[Any, Any]]:
    """Each stage's run and its method."""
    runs = [trained.run.parts[f"stage-{i}"] for i in range(len(trained.method.cells))]
    return [(run, next(p for p in run.plugins.values() if isinstance(p, PDARTS))) for run in runs]


@pytest.mark.invariant("p-darts", 1)
def test_the_paper_s_stages_have_5_11_and_17_cells_and_8_5_and_3_operations() -> None:
    method = PDARTS(**resolve("p-darts", "darts", preset="paper").options["p-darts"])
    assert (method.cells, [8, *method.kept]) == ([5, 11, 17], [8, 5, 3])
    assert (method.dropout, method.warmup, method.max_skips) == ([0.0, 0.4, 0.7], 10, 2)
    recipe = resolve("p-darts", "darts", preset="paper")
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.train.lr) == (25, 96, 0.025)
    assert (recipe.train.weight_decay, recipe.train.clip, method.arch_lr) == (3e-4, 5.0, 6e-4)
    blocks = resolve("p-darts", "nb201", preset="paper").options["p-darts"]["cells"]
    assert [3 * n + 2 for n in blocks] == [5, 11, 17]  # with the two residual blocks between the groups


@pytest.mark.invariant("p-darts", 1)
@pytest.mark.parametrize(("space", "cells", "kept"), [("darts", [3, 4, 5], [5, 3]), ("nb201", [1, 2, 3], [4, 3])])
def test_depth_grows_and_operations_are_dropped(train: Train, space: str, cells: list[int], kept: list[int]) -> None:
    options = {"cells": cells, "kept": kept, "dropout": [0, 0.1, 0.2], "warmup": 0, "arch_lr": 0.1}
    trained = train("p-darts", space, train={"epochs": 1}, **{"p-darts": options})
    counts = [len(next(iter(trained.run.space.relaxed.values()))), *kept]
    before = None
    for (run, method), depth, count in zip(parts(trained), cells, counts, strict=True):
        assert len([m for m in run.net.modules() if type(m).__name__ in ("SearchCell", "Cell")]) == depth * (
            3 if space == "nb201" else 1
        )
        assert {len(ops) for ops in method._alive} == {len(a) for a in method._alphas} == {count}
        if before is not None:
            assert method._alive == before  # what the stage before held to be strongest
        weights = method.strength(run)
        for w, ops in zip(weights, method._alive, strict=True):
            assert [i for i, value in enumerate(w.tolist()) if value] == ops
            assert float(w.sum()) == pytest.approx(1)
        if count != counts[-1]:
            before = strongest(weights, method._alive, counts[counts.index(count) + 1])


@pytest.mark.invariant("p-darts", 2)
def test_the_strongest_of_those_left_go_on() -> None:
    weights = [torch.tensor([0.1, 0.0, 0.4, 0.2, 0.3]), torch.tensor([0.5, 0.25, 0.25, 0.0, 0.0])]
    assert strongest(weights, [[0, 2, 3, 4], [0, 1, 2]], 2) == [[2, 4], [0, 1]]


@pytest.mark.invariant("p-darts", 2)
def test_an_operation_that_was_dropped_is_not_computed(train: Train) -> None:
    trained = train("p-darts", "darts", train={"epochs": 1}, darts=SMALL)
    run, method = parts(trained)[-1]
    trainable = 0
    for i, cell in enumerate(run.net.cells):
        at = 14 * run.space.structure_of(i, cell.place.reduces)
        for e, edge in enumerate(cell.edges):
            for op, module in enumerate(edge.operations, 1):
                for p in module.parameters():
                    assert (p.grad is not None) == (op in method._alive[at + e])
                    trainable += p.grad is not None
    assert trainable > 0


@pytest.mark.invariant("p-darts", 3)
def test_dropout_on_skips_falls_in_each_stage(begin: Train) -> None:
    trained = begin("p-darts[warmup=10]", "nb201", train={"epochs": 25})
    method, run = trained.method, trained.run
    method._dropout, rates = 0.4, []
    for epoch in range(25):
        run.step = epoch * run.steps_per_epoch
        rates.append(method.skip_dropout(run))
    assert rates[:10] == pytest.approx([0.4 * (24 - e) / 25 for e in range(10)])
    assert rates[10:] == pytest.approx([0.4 * math.exp(-0.2 * e) for e in range(15)])


@pytest.mark.invariant("p-darts", 3)
@pytest.mark.parametrize("space", ["nb201", "darts"])
def test_the_dropout_is_on_plain_skips_alone(inside: Any, space: str) -> None:
    """With all of it dropped, a skip gives zeros and every other operation what it gave."""

    def look(trained: Trained) -> Any:
        net, found, x = trained.run.net, [], torch.rand(2, 2, 8, 8, dtype=torch.float64)
        for share in (0.0, 1.0):
            for module in net.modules():
                if isinstance(module, nn.Dropout):
                    module.p = share
            edge = (net.groups[0][0] if space == "nb201" else net.cells[0]).edges[0]
            found.append([edge(x, op) for op in range(1, 5)])
        return x, *found

    x, kept, dropped = inside("spos", look, space)
    at = 0 if space == "nb201" else 2
    assert kept[at].equal(x)
    for i, (a, b) in enumerate(zip(kept, dropped, strict=True)):
        assert (not b.any()) if i == at else a.equal(b)


@pytest.mark.invariant("p-darts", 3)
def test_a_step_trains_with_the_dropout_of_its_epoch(train: Train) -> None:
    trained = train("p-darts", "darts", train={"epochs": 2}, darts=SMALL)
    for (run, _), share in zip(parts(trained), (0.2, 0.5), strict=True):
        shares = {m.p for m in run.net.modules() if isinstance(m, nn.Dropout)}
        assert shares == {share}  # the second of two epochs is the first after the warm-up


@pytest.mark.invariant("p-darts", 4)
@pytest.mark.parametrize("most", [0, 1, 2, 5, None])
def test_at_most_so_many_skips_stand_in_the_normal_cell(begin: Train, most: int | None) -> None:
    """Skips are the heaviest on every edge; those of the weakest edges give way to the second heaviest."""
    trained = begin(f"p-darts[max_skips={'null' if most is None else most}]", "darts")
    method, run = trained.method, trained.run
    method._alive = [[0, SKIP, 4]] * 28
    method._alphas = [torch.tensor([1.0, 3.0 - e / 100, 2.0 - e / 100]).double() for _ in range(2) for e in range(14)]
    (choice,) = method.select(run)
    normal, reduce = run.space.structures(choice.arch)
    assert sum(op == SKIP for op in reduce) == 8  # the reduction cell is left alone
    skips = [e for e, op in enumerate(normal) if op == SKIP]
    assert len(skips) == (8 if most is None else most)
    assert sum(op != 0 for op in normal) == 8
    # By hand: the authors' rule, on the edges as they stand.
    left = set(range(14))
    while True:
        strength = [float(w[SKIP] if e in left else w[4]) for e, w in enumerate(method.strength(run)[:14])]
        kept = {
            e
            for node in (2, 3, 4, 5)
            for e in sorted((e for e in range(14) if EDGES[e][1] == node), key=lambda e: -strength[e])[:2]
        }
        if len(kept & left) <= (8 if most is None else most):
            break
        left.remove(min(kept & left, key=lambda e: strength[e]))
    assert set(skips) == kept & left


def test_a_copy_without_an_option_leaves_the_weights_alone() -> None:
    weights = [torch.ones(3), torch.ones(2)]
    assert [w.tolist() for w in without(weights, 1, 0)] == [[1, 1, 1], [0, 1]]
    assert all(w.all() for w in weights)


@pytest.mark.invariant("p-darts", 5)
def test_alpha_rests_in_the_warm_up_of_every_stage(train: Train) -> None:
    trained = train("p-darts[warmup=1]", "nb201", train={"epochs": 2})
    alphas = [[a.clone() for a in method._alphas] for _, method in parts(trained)]
    resting = train("p-darts[warmup=2]", "nb201", train={"epochs": 2}, seed=0)
    for (run, method), moved in zip(parts(resting), alphas, strict=True):
        run._stage = f"{run.scope}train"
        rng = run.generator("alpha", step=0)
        for alpha, other in zip(method._alphas, moved, strict=True):
            start = 1e-3 * torch.randn(len(alpha), generator=rng)
            assert alpha.equal(start.double())
            if run.scope == "stage-0/":  # the second stage's operations depend on the first one's alpha
                assert not other.equal(start.double())


@pytest.mark.parametrize(
    ("label", "space", "message"),
    [
        ("p-darts", "tiny", "tiny has no number of cells to set"),
        ("p-darts[cells=[3]]", "darts", "has 1 stages"),
        ("p-darts[kept=[9]]", "darts", r"kept = \[9\] must not grow, and an edge of darts has 8 operations"),
        ("p-darts+ms", "nb201", "ms is about single subnets"),
    ],
)
def test_what_cannot_work_is_refused(begin: Train, label: str, space: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        begin(label, space)


def test_cells_of_their_own_are_refused(begin: Train) -> None:
    with pytest.raises(BadInput, match="every cell has decisions of its own"):
        begin("p-darts", "darts", darts={"variant": "SS3"})
