"""MGCS: four subnets trained together, and the cosines of their gradients in the last epoch."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nasbench_cells.nb201 import NB201
from nasbench_oneshot.mgcs import MGCS

from nasbench import Arch, BadInput, records
from nasbench.harness import prepare
from nasbench.recipe import resolve
from nasbench.stages import python_stream
from tests.conftest import RunTiny
from tests.nasbench_oneshot.conftest import Step, Train, Trained, algorithm, close, cosine, same


def drawn(seed: int = 0, **options: Any) -> list[Arch]:
    """A_0 and the A_n on NAS-Bench-201."""
    run: Any = SimpleNamespace(space=NB201(), fixed_rng=lambda purpose: python_stream(seed, purpose))
    return MGCS(**options).subnets(run)


def first_gradients(trained: Trained, step: Step) -> list[torch.Tensor]:
    """By hand: the gradients of the stem at a step, subnet by subnet."""
    net, found = copy.deepcopy(trained.start), []
    net.load_state_dict(step.before)
    for arch in step.archs:
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(step.batch.images.double(), [arch])[0], step.batch.labels).backward()
        found.append(net.stem.weight.grad.flatten())
    return found


@pytest.mark.invariant("mgcs", 1)
def test_a_copy_differs_in_exactly_so_many_decisions() -> None:
    distances, changed = [], set()
    for seed in range(200):
        base, *copies = drawn(seed)
        different = [[i for i, (a, b) in enumerate(zip(base, copy, strict=True)) if a != b] for copy in copies]
        distances.append(list(map(len, different)))
        changed |= {(n, i) for n, edges in zip((1, 3, 5), different, strict=True) for i in edges}
    assert distances == [[1, 3, 5]] * 200
    assert len(changed) == 3 * 6  # any of the edges
    assert len({drawn(seed)[0] for seed in range(200)}) > 190


@pytest.mark.invariant("mgcs", 2)
@pytest.mark.parametrize("method", ["spos", "fairnas"])
def test_every_step_trains_the_same_four_subnets_on_summed_gradients(train: Train, method: str) -> None:
    trained = train(f"{method}+mgcs", train={"epochs": 3})
    assert {tuple(step.archs) for step in trained.steps} == {tuple(trained.steps[0].archs)}
    assert len(trained.steps[0].archs) == 4
    assert close(trained.weights, algorithm(trained, cosine))


@pytest.mark.invariant("mgcs", 3)
def test_the_mean_over_the_last_epoch_is_that_of_cosines_by_hand(train: Train) -> None:
    trained = train("spos+mgcs", train={"epochs": 3})
    assert len(trained.steps) == 12
    assert all(step.before for step in trained.steps)
    cosines = []
    for step in trained.steps[-4:]:
        base, *others = first_gradients(trained, step)
        cosines.append([float(base @ g / base.norm() / g.norm()) for g in others])
    found = trained.run.plugins["mgcs"].evaluate(trained.run, [])  # type: ignore[attr-defined]
    assert [m.name for m in found] == ["mgcs_1", "mgcs_2", "mgcs_3"]
    assert [m.n for m in found] == [4, 4, 4]
    for m, column in zip(found, zip(*cosines, strict=True), strict=True):
        assert m.value == pytest.approx(sum(column) / 4, abs=1e-12)
        assert -1 < m.value < 1
    text = trained.run.space.format
    assert text(trained.steps[0].archs[0]) in found[0].definition
    assert text(trained.steps[0].archs[1]) in found[0].definition


@pytest.mark.invariant("mgcs", 4)
def test_measuring_changes_no_bit_of_the_training(train: Train) -> None:
    settings = {"epochs": 2, "clip": 5.0, "nesterov": True}
    measured = train("spos+mgcs", train=settings)
    blind = train("spos", train=settings, force=lambda run, archs: measured.steps[0].archs)
    assert same(measured.weights, blind.weights)


@pytest.mark.invariant("mgcs", 5)
@pytest.mark.parametrize(
    ("method", "space", "changed", "reason"),
    [
        (
            "spos+mgcs",
            "tiny",
            [1, 4],
            r"mgcs\.changed = \[1, 4\] does not fit: expected different numbers from 1 to 3\.",
        ),
        ("spos+mgcs", "nb201", [1, 1], "different numbers from 1 to 6"),
        ("fsnas+mgcs", "nb201", [1], "the method trains several"),
        ("random-search+mgcs", "tiny", [1], "never calls"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, method: str, space: str, changed: list[int], reason: str
) -> None:
    recipe = resolve(method, space, preset="test", target="digits", sets={"mgcs": {"changed": changed}})
    with pytest.raises(BadInput, match=reason):
        prepare(recipe, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_record_holds_it(run_tiny: RunTiny) -> None:
    record = run_tiny("spos+mgcs")
    values = [records.metric(record, f"mgcs_{n}") for n in (1, 2, 3)]
    assert all(m and m["value"] is not None and m["split"] == "train" for m in values)


def test_more_alike_subnets_have_more_alike_gradients_on_average(train: Train) -> None:
    """Table I's order, in the mean over seeds: a copy with one layer changed is closer than one with three."""
    means = dict.fromkeys((1, 2, 3), 0.0)
    for seed in range(8):
        run = train("spos+mgcs", seed=seed, train={"epochs": 3}).run
        for n, m in zip(means, run.plugins["mgcs"].evaluate(run, []), strict=True):  # type: ignore[attr-defined]
            means[n] += m.value / 8
    assert means[1] > means[2] > means[3]


def test_in_bfloat16_it_is_the_cosine_of_the_rounded_gradients(train: Train) -> None:
    trained = train("spos+mgcs", "nb201", train={"epochs": 1}, engine={"precision": "bfloat16"})
    run, cosines = trained.run, []
    for step in trained.steps:
        run.net.load_state_dict(step.before)
        gradients = []
        for arch in step.archs:  # each subnet alone, in a graph of its own
            loss = torch.nn.functional.cross_entropy(run.forward(step.batch.images, [arch])[0], step.batch.labels)
            gradients.append(torch.autograd.grad(loss, run.net.stem.weight)[0].flatten())
        cosines.append([float(torch.cosine_similarity(gradients[0], g, dim=0)) for g in gradients[1:]])
    found = [m.value for m in run.plugins["mgcs"].evaluate(run, [])]  # type: ignore[attr-defined]
    assert found == pytest.approx([sum(column) / 2 for column in zip(*cosines, strict=True)], abs=1e-2)


def test_only_the_last_epoch_counts(train: Train) -> None:
    for epochs in (1, 2, 5):
        run = train("spos+mgcs", train={"epochs": epochs}).run
        assert [m.n for m in run.plugins["mgcs"].evaluate(run, [])] == [4, 4, 4]  # type: ignore[attr-defined]
