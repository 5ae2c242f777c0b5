"""CaLR: equations 3 and 4, and where the rate stands in Algorithms 1 and 2."""

from __future__ import annotations

import copy
import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from nasbench_cells.nb201 import NB201
from nasbench_oneshot.calr import CaLR, decay_ratio
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, SearchSpace
from tests.nasbench_oneshot.conftest import Train, algorithm, clone, close, same

C_MIN, C_MAX = 72_752, 1_524_272
ONE_1X1, TWO_3X3 = (2, 0, 0, 0, 0, 0), (3, 3, 0, 0, 0, 0)
ALL_3X3, NO_CONV = (3,) * 6, (1,) * 6


def at(progress: float, space: SearchSpace | None = None) -> Any:
    """What CaLR asks a run for."""
    train = SimpleNamespace(lr=0.025)
    return SimpleNamespace(space=space or NB201(), progress=progress, recipe=SimpleNamespace(train=train))


def tiny_rate(arch: Arch, t: float, lr: float = 0.05, gamma_prime: float = 4) -> float:
    """Equations 3 and 4 written anew, complexity counted on the network."""
    space = Tiny(image=(1, 8, 8))
    weights = [sum(p.numel() for p in space.build(a).parameters() if p.ndim > 1) for a in ((0,) * 3, (1,) * 3, arch)]
    small, large, mine = map(math.log, weights)
    share = (mine - small) / (large - small)
    return lr * (1 - t) ** (gamma_prime + share * (1 / gamma_prime - gamma_prime))


@pytest.mark.invariant("calr", 1)
@given(
    st.floats(1, 10),
    st.sampled_from(["log", "linear", "exp"]),
    st.lists(st.integers(10_000, 5_000_000), min_size=4, max_size=4, unique=True),
)
def test_the_ratio_falls_strictly_from_gamma_prime_to_its_inverse(prime: float, g: str, costs: list[int]) -> None:
    low, a, b, high = sorted(costs)
    assume(prime > 1.01 and b - a > 100 and high - low > 10_000)
    gammas = [decay_ratio(c, low, high, prime, g) for c in (low, a, b, high)]
    assert gammas[0] == pytest.approx(prime, rel=1e-9)
    assert gammas[3] == pytest.approx(1 / prime, rel=1e-9)
    assert gammas[0] > gammas[1] > gammas[2] > gammas[3]


@pytest.mark.invariant("calr", 2)
@pytest.mark.parametrize(("arch", "gamma"), [(NO_CONV, 4.0), (ONE_1X1, 3.612420), (TWO_3X3, 1.491825), (ALL_3X3, 0.25)])
def test_decay_ratios_on_nas_bench_201(arch: Arch, gamma: float) -> None:
    assert CaLR().gamma(at(0), arch) == pytest.approx(gamma, abs=5e-7)


@pytest.mark.invariant("calr", 3)
@pytest.mark.parametrize(("prime", "omega", "tau"), [(4, -1.232654172, 17.799331320), (3, -0.876554078, 12.812857828)])
def test_omega_and_tau_of_equation_4(prime: float, omega: float, tau: float) -> None:
    one, e = (decay_ratio(c, C_MIN, C_MAX, prime) for c in (1, math.e))  # at log C = 0 and 1
    assert one == pytest.approx(tau, abs=5e-10)
    assert e - one == pytest.approx(omega, abs=5e-10)


@pytest.mark.invariant("calr", 4)
def test_which_complexity_decays_linearly_and_how_rare_slower_decay_is() -> None:
    assert decay_ratio(829_504, C_MIN, C_MAX, 4) > 1 > decay_ratio(829_506, C_MIN, C_MAX, 4)
    calr, run = CaLR(), at(0)
    gammas = [calr.gamma(run, arch) for arch in run.space.architectures()]
    assert sum(gammas) / len(gammas) == pytest.approx(2.179, abs=5e-4)
    assert sum(g < 1 for g in gammas) / len(gammas) == pytest.approx(0.0298, abs=5e-5)


@pytest.mark.invariant("calr", 5)
@pytest.mark.parametrize("method", ["spos", "fairnas"])
def test_gamma_prime_1_is_linear_decay_bit_for_bit(train: Train, method: str) -> None:
    assert {decay_ratio(c, C_MIN, C_MAX, 1, g) for c in (C_MIN, 500_000, C_MAX) for g in ("log", "linear", "exp")} == {
        1
    }
    # Several rates stand inside the momentum, so the equal rates of the schedule are put there too.
    place = "inside" if method == "fairnas" else "outside"
    plain = train(method, train={"schedule": "linear", "rate_placement": place})
    calr = train(f"{method}+calr[gamma_prime=1]", train={"rate_placement": place})
    assert [s.rates for s in calr.steps] == [[0.05 * (1 - t / 8)] * len(s.archs) for t, s in enumerate(plain.steps)]
    assert same(calr.weights, plain.weights)


@pytest.mark.invariant("calr", 6)
def test_rates_start_equal_then_grow_with_complexity_and_end_at_zero() -> None:
    space, calr = NB201(), CaLR()
    classes = {space.cost(arch)["conv_weights"]: arch for arch in space.architectures()}
    archs = [classes[c] for c in sorted(classes)]
    assert len(archs) == 28
    assert set(calr.learning_rates(at(0), archs)) == {0.025}
    for t in (0.001, 0.25, 0.5, 0.99):
        rates = calr.learning_rates(at(t), archs)
        assert all(a < b for a, b in itertools.pairwise(rates))
    assert set(calr.learning_rates(at(1), archs)) == {0}


@pytest.mark.invariant("calr", 7)
def test_the_first_and_the_last_rate_of_a_run(train: Train) -> None:
    steps = train("spos+calr", train={"epochs": 5}).steps
    gamma = {arch: CaLR().gamma(at(0, Tiny(image=(1, 8, 8))), arch) for step in steps for arch in step.archs}
    assert len(steps) == 20
    assert steps[0].rates == [0.05]
    assert steps[-1].rates == [pytest.approx(0.05 * (1 / 20) ** gamma[steps[-1].archs[0]], rel=1e-12)]
    assert steps[-1].rates[0] > 0


@pytest.mark.invariant("calr", 8)
@pytest.mark.parametrize("nesterov", [False, True])
def test_with_one_subnet_a_step_the_rate_stands_outside_the_momentum(train: Train, nesterov: bool) -> None:
    trained = train("spos+calr", train={"epochs": 4, "nesterov": nesterov})
    assert [step.group["lr"] for step in trained.steps] == [step.rates[0] for step in trained.steps]
    assert close(trained.weights, algorithm(trained, tiny_rate, nesterov=nesterov))


@pytest.mark.invariant("calr", 9)
@pytest.mark.parametrize("nesterov", [False, True])
def test_with_several_subnets_a_run_is_algorithm_2_of_the_paper(train: Train, nesterov: bool) -> None:
    trained = train("fairnas+calr", train={"epochs": 4, "nesterov": nesterov})
    assert close(trained.weights, algorithm(trained, tiny_rate, inside=True, nesterov=nesterov))
    assert not close(trained.weights, algorithm(trained, tiny_rate, nesterov=nesterov))
    for step in trained.steps:
        assert step.group["lr"] == 1
        assert step.group["weight_decay"] == pytest.approx(5e-4 * sum(step.rates) / 3, rel=1e-12)


@pytest.mark.invariant("calr", 10)
def test_the_accumulated_gradient_is_weighted_by_the_rates(train: Train) -> None:
    def check(method: str, weights: list[float] | None) -> None:
        trained = train(method, train={"epochs": 1, "weight_decay": 0.0})
        step, net = trained.steps[2], trained.start
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.copy_(step.before[name])
        logits = net(step.batch.images.double(), step.archs)
        losses = [torch.nn.functional.cross_entropy(one, step.batch.labels) for one in logits]
        rates = weights or [tiny_rate(arch, 0.5) for arch in step.archs]
        sum(rate * loss for rate, loss in zip(rates, losses, strict=True)).backward()
        for name, p in net.named_parameters():
            torch.testing.assert_close(step.grads[name], p.grad, rtol=1e-10, atol=1e-14)

    check("fairnas+calr", None)
    check("fairnas+calr[gamma_prime=1]", [0.025] * 3)  # equal ratios: eta times the sum of the gradients


@pytest.mark.invariant("calr", 11)
@pytest.mark.parametrize("nesterov", [False, True])
def test_algorithm_2_with_one_subnet_is_sgd_with_the_rate_in_the_gradient(train: Train, nesterov: bool) -> None:
    trained = train("spos+calr", train={"epochs": 4, "rate_placement": "inside", "nesterov": nesterov})
    net = copy.deepcopy(trained.start)
    sgd = torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9, nesterov=nesterov)
    for step in trained.steps:
        eta = tiny_rate(step.archs[0], step.progress)
        sgd.param_groups[0]["weight_decay"] = 5e-4 * eta
        sgd.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(step.batch.images.double(), step.archs)[0], step.batch.labels)
        (eta * loss).backward()
        sgd.step()
    assert close(trained.weights, clone(dict(net.named_parameters())))


@pytest.mark.invariant("calr", 12)
def test_the_extremes_are_those_of_the_whole_space_also_in_a_part_of_it() -> None:
    part = NB201().restrict({"1<-0": [3], "2<-0": [3]})
    assert CaLR().gamma(at(0, part), TWO_3X3) == pytest.approx(1.491825, abs=5e-7)


@pytest.mark.parametrize("complexity", ["params", "madds"])
def test_other_complexities_have_the_same_ends(complexity: str) -> None:
    calr = CaLR(complexity=complexity)
    assert calr.gamma(at(0), NO_CONV) == pytest.approx(4)
    assert calr.gamma(at(0), ALL_3X3) == pytest.approx(0.25)
    assert calr.gamma(at(0), ONE_1X1) != pytest.approx(3.612420, abs=1e-4)


def test_a_space_of_equal_complexity_is_refused() -> None:
    space = SimpleNamespace(name="flat", cost_range=lambda name: (7, 7))
    assert CaLR().refuse(at(0, space)) == "calr needs subnets of different conv_weights; in flat all are equal."
    assert CaLR().refuse(at(0)) is None


@pytest.mark.invariant("calr", 13)
def test_matched_gives_every_subnet_the_mean_ratio_of_the_space() -> None:
    every = [CaLR(matched=True).gamma(at(0), arch) for arch in (NO_CONV, ALL_3X3)]
    assert every[0] == every[1] == pytest.approx(2.179, abs=5e-4)
    assert len(set(CaLR(matched=True).learning_rates(at(0.5), [NO_CONV, ALL_3X3]))) == 1
    part = NB201().restrict({"1<-0": [3]})
    assert CaLR(matched=True).gamma(at(0, part), ALL_3X3) == every[0]


@pytest.mark.invariant("calr", 14)
def test_the_decay_may_stay_at_the_initial_rate(train: Train) -> None:
    trained = train("fairnas+calr", train={"epochs": 4, "decay": "initial_rate"})
    assert {step.group["weight_decay"] for step in trained.steps} == {5e-4 * 0.05}
    assert close(trained.weights, algorithm(trained, tiny_rate, inside=True, decay_rate=0.05))
    assert not close(trained.weights, algorithm(trained, tiny_rate, inside=True))
