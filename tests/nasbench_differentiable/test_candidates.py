"""SETN, ENAS and random search with weight sharing: what trains the weights, what draws the candidates."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from nasbench_differentiable.controller import Controller

from nasbench import Run
from tests.nasbench_differentiable.conftest import Train, Trained


def chi_squared(counts: Counter[Any], expected: float) -> float:
    return sum((n - expected) ** 2 / expected for n in counts.values())


@pytest.mark.invariant("random-ws", 1)
@pytest.mark.invariant("setn", 1)
@pytest.mark.parametrize("method", ["random-ws", "setn"])
def test_each_step_trains_one_subnet_drawn_uniformly(begin: Train, method: str) -> None:
    run = begin(method).run
    drawn: Counter[Any] = Counter()
    for run.step in range(2700):
        (arch,) = run.hook.sample_archs(run=run)
        drawn[arch] += 1
    assert len(drawn) == 27
    assert chi_squared(drawn, 100) < 54.05  # 26 degrees of freedom: once in a thousand draws


@pytest.mark.invariant("random-ws", 2)
@pytest.mark.invariant("setn", 3)
@pytest.mark.invariant("enas", 4)
@pytest.mark.parametrize("method", ["random-ws", "setn", "enas"])
def test_the_best_of_the_candidates_is_taken(train: Train, monkeypatch: Any, method: str) -> None:
    trained = train(f"{method}[candidates=5]", train={"epochs": 1})
    run, scored = trained.run, []

    def score(run: Run, archs: list[Any], stage: str = "score") -> dict[Any, float]:
        scored.extend(archs)
        return {arch: float(i == 1) for i, arch in enumerate(archs)}

    monkeypatch.setattr(f"{type(trained.method).__module__}.score_all", score)
    (choice,) = run.hook.select(run=run)
    assert choice.arch == scored[1]
    assert 2 <= len(scored) == len(set(scored)) <= 5
    assert all(arch in run.space for arch in scored)


@pytest.mark.invariant("setn", 2)
def test_the_evaluator_draws_each_option_with_its_softmax_probability(inside: Any) -> None:
    def look(trained: Trained) -> Any:
        for alpha in trained.method._alphas:
            alpha.data.copy_(torch.tensor([0.0, 1.0, -1.0]))
        return [trained.method.draw(trained.run, i) for i in range(3000)]

    drawn = inside("setn", look)
    probability = torch.tensor([0.0, 1.0, -1.0]).softmax(0)
    for decision in range(3):
        counts = torch.bincount(torch.tensor([arch[decision] for arch in drawn]), minlength=3)
        assert float(((counts - 3000 * probability) ** 2 / (3000 * probability)).sum()) < 13.82  # 2 degrees


@pytest.mark.invariant("setn", 4)
def test_the_evaluator_learns_while_the_weights_train_on_single_subnets(train: Train) -> None:
    for step in train("setn", train={"epochs": 1}).steps:
        assert isinstance(step.archs[0], tuple)
        assert not any(a.equal(b) for a, b in zip(step.before, step.after, strict=True))


# ---------------------------------------------------------------------- ENAS


@pytest.mark.invariant("enas", 1)
def test_the_controller_s_log_probabilities_are_those_of_its_draws() -> None:
    torch.manual_seed(0)
    controller = Controller([2, 3]).double()
    with torch.no_grad():
        for head in controller.heads:
            head.weight.mul_(200)
    drawn, claimed, entropies = Counter[Any](), dict[Any, float](), []
    for i in range(3000):
        places, log_prob, entropy = controller(torch.Generator().manual_seed(i))
        drawn[tuple(places)] += 1
        claimed[tuple(places)] = math.exp(float(log_prob.detach()))
        entropies.append(float(entropy.detach()))
    assert len(claimed) == 6
    assert sum(claimed.values()) == pytest.approx(1)
    assert len({round(p, 3) for p in claimed.values()}) > 2  # not uniform
    assert sum((drawn[k] - 3000 * p) ** 2 / (3000 * p) for k, p in claimed.items()) < 20.52  # 5 degrees
    # The mean entropy of the decisions, given those before, is the entropy of the whole.
    exact = -sum(p * math.log(p) for p in claimed.values())
    assert sum(entropies) / len(entropies) == pytest.approx(exact, abs=0.01)


@pytest.mark.invariant("enas", 1)
def test_no_option_is_out_of_reach() -> None:
    controller = Controller([4])
    with torch.no_grad():
        controller.heads[0].bias.copy_(torch.tensor([1e6, -1e6, -1e6, -1e6]))
    _, log_prob, entropy = controller(torch.Generator().manual_seed(0))
    low = math.exp(-2.5) / (math.exp(2.5) + 3 * math.exp(-2.5))
    assert float(log_prob.detach()) == pytest.approx(math.log(1 - 3 * low), abs=1e-6)
    assert float(entropy.detach()) > 0


@pytest.mark.invariant("enas", 2)
def test_reinforce_makes_what_is_rewarded_more_likely(inside: Any, monkeypatch: Any) -> None:
    """Only the first option of the first decision is rewarded."""

    def look(trained: Trained) -> Any:
        run, method = trained.run, trained.method
        before = share(trained)
        images = run.data.batches("valid", run.recipe.score.batch_size)

        def forward(batch: torch.Tensor, archs: list[Any]) -> torch.Tensor:
            labels = next(b.labels for b in images if len(b.images) == len(batch))
            right = torch.nn.functional.one_hot(labels, 10).double()
            return (right if archs[0][0] == 0 else 1 - right)[None]

        monkeypatch.setattr(run, "forward", forward)
        for run.step in range(6):
            method.after_epoch(run)
        return before, share(trained), run.state["baseline"]

    def share(trained: Trained) -> float:
        with torch.no_grad():
            drawn = [trained.method.draw(trained.run, f"look {i}")[0][0] == 0 for i in range(300)]
        return sum(drawn) / 300

    before, after, baseline = inside("enas[controller_steps=10,samples=10,controller_lr=0.01]", look)
    assert before < 0.5 < 0.9 < after
    assert 0 < baseline < 1.1


@pytest.mark.invariant("enas", 3)
def test_the_controller_is_trained_after_each_epoch_and_the_weights_by_steps_alone(train: Train) -> None:
    trained = train("enas[controller_steps=3,samples=1]", train={"epochs": 2})
    assert len(trained.steps) == 8
    assert all(isinstance(step.archs[0], tuple) for step in trained.steps)
    assert {int(s["step"]) for s in trained.method._optimizer.state.values()} == {6}
    assert 0 < trained.run.plugins["enas"].state_dict(trained.run)["controller"]["start"].norm() < 10  # type: ignore[index]
