"""OFA-T, OFA-V and random in budget: the predictor, the evolution, one architecture or one a superclass."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from nasbench_eas.predictor import Predictor, evolve, fit
from nasbench_eas.random_in_budget import random_legal
from nasbench_mobile.mobilenet_v3 import MobileNetV3

from nasbench import Arch
from tests.conftest import RunTiny
from tests.nasbench_eas.conftest import Prepare

SPACE = MobileNetV3()


def quality(arch: Arch) -> float:
    """A made-up accuracy: larger kernels are good, larger widths better, costs aside."""
    return sum(k + 3 * e for _, k, e in SPACE.blocks(arch))


@pytest.mark.invariant("ofa-t", 1)
def test_a_predictor_learns_what_codes_say() -> None:
    """A linear function of the code with noise-free targets: the error falls to a small part of the spread."""
    draw = random.Random(0)
    archs = [tuple(draw.randrange(3) for _ in range(45)) for _ in range(400)]
    codes = torch.tensor([SPACE.encode(arch) for arch in archs]).float()
    targets = torch.tensor([0.5 + 0.002 * quality(arch) for arch in archs])
    torch.manual_seed(0)
    predictor = Predictor(120)
    fit(predictor, codes[:300], targets[:300], torch.Generator().manual_seed(0), epochs=60, batch_size=32)
    assert predictor.base.item() == pytest.approx(targets[:300].mean().item())
    with torch.no_grad():
        error = (predictor(codes[300:]) - targets[300:]).std()
    assert error < 0.3 * targets[300:].std()
    assert [m.out_features for m in predictor.layers if isinstance(m, torch.nn.Linear)] == [400, 400, 400, 1]


@pytest.mark.invariant("ofa-t", 2)
@pytest.mark.parametrize("budget", [200e6, 320e6, 566_170_656.0])
def test_evolution_looks_at_nothing_over_the_budget_and_beats_its_start(budget: float) -> None:
    seen: list[list[Arch]] = []
    run: Any = type("Run", (), {"space": SPACE})
    rng = random.Random(0)

    def score(archs: Any) -> list[float]:
        seen.append(list(archs))
        return [quality(arch) for arch in archs]

    def legal(arch: Arch) -> bool:
        return SPACE.cost(arch)["madds"] <= budget

    best = evolve(SPACE, score, legal, lambda: random_legal(run, budget, rng), rng, generations=30, population=40)
    everyone = [arch for archs in seen for arch in archs]
    assert len(everyone) == len(set(everyone))  # scored once
    assert all(legal(arch) for arch in everyone)
    assert quality(best) == max(map(quality, everyone)) > max(map(quality, seen[0]))


@pytest.mark.invariant("ofa-t", 2)
def test_evolution_finds_the_best_of_a_small_part() -> None:
    """One open unit of two blocks: 81 architectures, all of which can be looked at."""
    fixed = {name: [0] for name in SPACE.decisions}
    part = SPACE.restrict({**fixed, **{name: [0, 1, 2] for name in ("k2.1", "k2.2", "e2.1", "e2.2")}})
    budget = 130e6
    legal = [arch for arch in part.architectures() if part.cost(arch)["madds"] <= budget]
    assert 1 < len(legal) < 81
    rng = random.Random(0)
    best = evolve(
        part,
        lambda archs: [quality(arch) for arch in archs],
        lambda arch: part.cost(arch)["madds"] <= budget,
        lambda: rng.choice(legal),
        rng,
        generations=20,
        population=20,
        mutation=0.3,
    )
    assert quality(best) == max(map(quality, legal))


@pytest.mark.invariant("ofa-t", 3)
def test_accuracies_are_of_subnets_on_validation_images(prepared: Prepare) -> None:
    run = prepared("ofa-t")
    run.hook.train(run=run)
    ofa: Any = run.plugins["ofa-t"]
    kept: list[Any] = []
    run.stage("again", lambda: kept.extend(ofa.measure(run)))
    assert len(kept) == 4
    arch, found = kept[0]
    network = ofa.network(run, arch).eval()
    groups = [[0, 6, 8, 9], [1, 4, 7], [2, 3, 5]]
    for group, value in zip(groups, found, strict=True):
        rows = torch.nonzero(torch.isin(run.data.valid.labels, torch.tensor(group)))[:, 0]
        batch = run.data.batch("valid", rows)
        with torch.no_grad():
            answers = torch.tensor(group)[network(batch.images)[:, group].argmax(1)]
        assert value == pytest.approx(100 * (answers == batch.labels).float().mean().item())


@pytest.mark.invariant("ofa-t", 4)
@pytest.mark.parametrize("method", ["ofa-t", "ofa-v", "random-in-budget"])
def test_choices_keep_to_their_budgets(run_tiny: RunTiny, method: str) -> None:
    record = run_tiny(method, space="mobilenetv3")
    found = [{m["name"]: m["value"] for m in result["metrics"]} for result in record["results"]]
    assert [each["within_budget"] for each in found] == [1] * 6
    archs = [result["arch"] for result in record["results"]]
    if method == "ofa-v":
        assert archs[0] == archs[1] == archs[2]
        assert archs[3] == archs[4] == archs[5]
    if method == "random-in-budget":
        assert len(set(archs)) == 6


@pytest.mark.invariant("ofa-t", 5)
def test_random_architectures_are_legal_and_those_of_rejection_where_it_succeeds() -> None:
    run: Any = type("Run", (), {"space": SPACE})
    for budget in (122e6, 150e6, 300e6):
        archs = [random_legal(run, budget, random.Random(seed), tries=50) for seed in range(30)]
        assert all(SPACE.cost(arch)["madds"] <= budget for arch in archs)
        assert all(arch in SPACE for arch in archs)
    free = [random_legal(run, math.inf, random.Random(seed)) for seed in range(400)]
    shares = [sum(arch[40] == o for arch in free) / 400 for o in range(3)]
    assert all(abs(share - 1 / 3) < 4 * (2 / 9 / 400) ** 0.5 for share in shares)
