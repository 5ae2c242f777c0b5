"""The proxies on a network of two layers, by hand: two inputs, two hidden units with ReLU, two logits.

    x = (1, 1) and (1, -1); hidden = relu(W x), W = [[1, 0], [1, 2]]; logits = V hidden, V = [[1, 0], [0, -1]].

So the hidden units are (1, 3) and (1, 0), the second off for the second image, the logits (1, -3) and (1, 0).
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nasbench_cells.nb201 import NB201
from nasbench_tiny.tiny import Tiny
from nasbench_zerocost.costs import MAdds, Params
from nasbench_zerocost.grasp import GraSP
from nasbench_zerocost.jacob_cov import JacobCov
from nasbench_zerocost.naswot import NASWOT, naswot
from nasbench_zerocost.proxy import LAST, Proxy
from nasbench_zerocost.snip import SNIP
from nasbench_zerocost.synflow import SynFlow, without_signs
from nasbench_zerocost.zico import ZiCo
from torch import nn

from nasbench import Arch, BadInput, Run
from nasbench.data import Batch
from nasbench.harness import prepare
from nasbench.recipe import resolve
from nasbench.records import metric
from tests.conftest import RunTiny

W, V = [[1.0, 0.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, -1.0]]
IMAGES = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)


def two_layers(w: Any = W, v: Any = V) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).double()
    for layer, values in ((net[0], w), (net[2], v)):
        layer.weight.data = torch.tensor(values, dtype=torch.float64)
    return net


def value(proxy: Proxy, batches: list[Batch] | None = None, net: nn.Module | None = None) -> float:
    """What a proxy makes of the network of two layers on these batches."""
    cls = type(proxy)
    mine = type(cls.__name__, (cls,), {"network": lambda *_: net or two_layers(), "batches": lambda *_: batches})
    space = SimpleNamespace(image=(2,), number=lambda arch: 0)
    return mine(**proxy.model_dump()).measure(SimpleNamespace(space=space, device=torch.device("cpu")), ())  # type: ignore[no-any-return]


def batch(rows: list[int], labels: list[int]) -> Batch:
    return Batch(IMAGES[rows].clone(), torch.tensor(labels))


@pytest.mark.invariant("zero-cost", 1)
def test_synflow_is_the_sum_over_paths_once_for_each_layer() -> None:
    # Without signs (1, 1) gives hidden (1, 3) and logits (1, 3): R = 4, and theta dR/dtheta sums to R in either layer.
    assert value(SynFlow()) == 8.0


@pytest.mark.invariant("zero-cost", 1)
def test_synflow_sees_no_signs_no_batch_norm_and_no_bias_as_a_weight() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(4, 1, bias=False)
    )
    for p, v in zip(net.parameters(), (-2.0, -1.0, 5.0, 5.0, -3.0), strict=True):
        p.data.fill_(v)
    # conv: 2 + 1 = 3 at each of 4 pixels; logit 4 * 3 * 3 = 36. The last layer has 36 of it, the first 4 * 3 * 2 = 24.
    net = without_signs(net)
    assert net(torch.ones(1, 1, 2, 2).double()).tolist() == [[36.0]]
    run: Any = SimpleNamespace(space=SimpleNamespace(image=(1, 2, 2)), device="cpu")
    made = type("Made", (SynFlow,), {"network": lambda *_: net})()
    assert made.measure(run, ()) == 60.0


@pytest.mark.invariant("zero-cost", 2)
def test_snip_is_the_loss_gradient_times_each_weight() -> None:
    # One image (1, -1), label 0: hidden (1, 0), logits (1, 0), p = (s, 1 - s), s = 1 / (1 + 1/e); dL/dz = (s-1, 1-s).
    # V: |V g| = |1 * (s-1) * 1| = 1-s, the others meet a unit that is off. W: unit 0 has dL/dh = s-1, |1 * (s-1) * 1|.
    s = 1 / (1 + math.exp(-1))
    assert value(SNIP(), [batch([1], [0])]) == pytest.approx(2 * (1 - s), rel=1e-12)


@pytest.mark.invariant("zero-cost", 3)
def test_grasp_is_minus_theta_times_the_hessian_times_the_gradient() -> None:
    # The same image, where only a = W[0,0], b = W[0,1], c = V[0,0] and d = V[1,0] matter: h = a - b, logits (ch, dh).
    # L = log(1 + exp(-(c - d) h)): with u = (c - d) h = 1, L' = -q, q = 1/(1+e), L'' = q (1-q) = r.
    q = 1 / (1 + math.e)
    r = q * (1 - q)
    g = torch.tensor([-q, q, -q, q], dtype=torch.float64)  # by a, b, c, d: L' times (1, -1, 1, -1)
    du = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    second = torch.zeros(4, 4, dtype=torch.float64)  # of u: d2u/da dc = 1, da dd = -1, db dc = -1, db dd = 1
    for i, j, v in ((0, 2, 1.0), (0, 3, -1.0), (1, 2, -1.0), (1, 3, 1.0)):
        second[i, j] = second[j, i] = v
    hessian = r * torch.outer(du, du) - q * second
    theta = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    by_hand = -float(theta @ hessian @ g)
    assert by_hand == pytest.approx(2 * q * (4 * r - 2 * q), rel=1e-12)  # H g = -q (4 r - 2 q) (1, -1, 1, -1)
    assert value(GraSP(), [batch([1], [0])]) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.invariant("zero-cost", 4)
def test_jacob_cov_of_opposite_and_of_correlated_images() -> None:
    # Jacobians of the summed logits: image 1 has W' (1, -1) = (0, -2), image 2 W' (1, 0) = (1, 0). About their means:
    # (1, -1) and (1/2, -1/2): correlation 1, eigenvalues 2 and 0.
    k = 1e-5
    expected = -(math.log(2 + k) + 1 / (2 + k) + math.log(k) + 1 / k)
    assert value(JacobCov(), [batch([0, 1], [0, 1])]) == pytest.approx(expected, rel=1e-6)
    k = 1.0
    expected = -(math.log(3) + 1 / 3 + math.log(1) + 1)
    assert value(JacobCov(k=1), [batch([0, 1], [0, 1])]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.invariant("zero-cost", 5)
def test_naswot_counts_where_two_images_agree() -> None:
    # Codes (1, 1) and (1, 0): they agree in one of two units. K = [[2, 1], [1, 2]], log 3.
    assert naswot(two_layers(), IMAGES) == pytest.approx(math.log(3), rel=1e-12)
    assert value(NASWOT(), [batch([0, 1], [0, 1])]) == pytest.approx(math.log(3), rel=1e-12)
    assert naswot(two_layers(), IMAGES[[0, 0]]) == -math.inf
    assert naswot(nn.Flatten(), IMAGES) == -math.inf  # nothing rectifies


@pytest.mark.invariant("zero-cost", 5)
@pytest.mark.parametrize("rectifier", [nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.1), nn.Hardswish(), torch.relu])
def test_naswot_sees_every_rectifier(rectifier: Any) -> None:
    x = torch.tensor([[1.0, -1.0, 2.0], [1.0, 1.0, -2.0], [-1.0, -1.0, -1.0]])
    kernel = torch.tensor([[3.0, 1, 1], [1, 3, 1], [1, 1, 3]])
    assert naswot(rectifier, x) == pytest.approx(float(torch.logdet(kernel)), rel=1e-6)


@pytest.mark.invariant("zero-cost", 6)
@pytest.mark.parametrize("deviation", ["absolute", "signed"])
def test_zico_is_mean_over_deviation_of_the_gradients_of_two_batches(deviation: str) -> None:
    # Image (1, -1), once with label 0 and once with label 1: dL/dz = (s-1, 1-s) and (s, -s). Gradients with t = 1 - s:
    # V[0,0]: -t and s, V[1,0]: t and -s; W[0,0]: by dL/dh = (-t, s), W[0,1]: (t, -s); all else 0 twice.
    # |g| = t and s: mean 1/2 and deviation (s-t)/2, ratio 1/(s-t). Signed: deviation (s+t)/2 = 1/2, ratio 1.
    s = 1 / (1 + math.exp(-1))
    ratio = 1 / (2 * s - 1) if deviation == "absolute" else 1.0
    batches = [batch([1], [0]), batch([1], [1])]
    assert value(ZiCo(deviation=deviation), batches) == pytest.approx(2 * math.log(2 * ratio), rel=1e-12)  # type: ignore[arg-type]


@pytest.mark.invariant("zero-cost", 6)
def test_zico_leaves_out_what_does_not_move() -> None:
    assert value(ZiCo(), [batch([1], [0])] * 2) == 0.0


# ---------------------------------------------------------------------- in a run

NAMES = ["params", "madds", "synflow", "snip", "grasp", "jacob-cov", "naswot", "zico"]


def run_of(method: str, tmp_path: Any, space: str = "nb201", seed: int = 0, **sets: Any) -> Run:
    run, _ = prepare(resolve(method, space, preset="test", seed=seed, sets=sets), tmp_path / method)
    run.hook.train(run=run)
    return run


def score(run: Run, archs: list[Arch]) -> list[float]:
    return run.stage("some", lambda: run.hook.score(run=run, archs=archs))


@pytest.mark.invariant("zero-cost", 7)
@pytest.mark.parametrize("method", ["params", "madds", "synflow"])
def test_what_needs_no_data_does_not_depend_on_it(method: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(method, tmp_path)
    archs = run.subset()[:4]
    found = score(run, archs)
    blind = run_of(method, tmp_path / "blind")
    monkeypatch.setattr(blind, "data", None)
    assert score(blind, archs) == found
    assert len(set(found)) > 1


@pytest.mark.invariant("zero-cost", 7)
@pytest.mark.parametrize("method", ["snip", "grasp", "jacob-cov", "naswot", "zico"])
def test_the_others_do(method: str, tmp_path: Any) -> None:
    run, dark = run_of(method, tmp_path), run_of(method, tmp_path / "dark")
    archs = [NB201().parse("1000"), NB201().parse("11718")]
    dark.data.train.images = 255 - dark.data.train.images.flip(0)
    assert score(run, archs) != score(dark, archs)


@pytest.mark.invariant("zero-cost", 8)
@pytest.mark.parametrize("method", ["synflow", "snip", "naswot"])
def test_a_score_is_decided_by_seed_and_architecture(method: str, tmp_path: Any) -> None:
    archs = [NB201().parse(str(n)) for n in (1000, 2000, 11718)]
    forth = score(run_of(method, tmp_path / "1"), archs)
    torch.manual_seed(5)
    back = score(run_of(method, tmp_path / "2"), archs[::-1])
    assert forth == back[::-1]
    assert forth != score(run_of(method, tmp_path / "3", seed=1), archs)


@pytest.mark.invariant("zero-cost", 9)
@pytest.mark.parametrize("method", ["synflow", "jacob-cov", "naswot", "snip", "grasp", "zico"])
def test_a_network_without_a_path_ranks_last_or_with_the_last(method: str, tmp_path: Any) -> None:
    run = run_of(method, tmp_path)
    dead, alive = score(run, [NB201().parse("0"), NB201().parse("11718")])
    assert math.isfinite(dead)
    if method in ("jacob-cov", "naswot"):
        assert dead == LAST < alive
    if method == "synflow":
        assert dead == 0.0 < alive


@pytest.mark.invariant("zero-cost", 10)
@pytest.mark.parametrize(("method", "cost"), [(Params(), "params"), (MAdds(), "madds")])
def test_the_counts_are_those_of_the_table_s_networks(method: Any, cost: str) -> None:
    small, large, arch = NB201(channels=2, cells=1), NB201(), (3, 0, 2, 1, 4, 3)
    run: Any = SimpleNamespace(space=small, truth=SimpleNamespace(space=large))
    assert method.measure(run, arch) == large.cost(arch)[cost]
    run = SimpleNamespace(space=small, truth=None)
    assert method.measure(run, arch) == small.cost(arch)[cost]


@pytest.mark.invariant("zero-cost", 10)
def test_the_parameter_count_ranks_as_itself(run_tiny: RunTiny) -> None:
    record = run_tiny("params")
    tau, trivial = metric(record, "kendall_tau"), metric(record, "params_tau")
    assert tau is not None
    assert trivial is not None
    assert tau["value"] == trivial["value"]


@pytest.mark.invariant("zero-cost", 11)
@pytest.mark.parametrize("method", NAMES)
def test_a_run_trains_nothing_and_takes_the_best(method: str, run_tiny: RunTiny) -> None:
    record = run_tiny(method)
    assert list(record["measured"]["seconds"]) == ["score"]
    tau, top1 = metric(record, "kendall_tau"), metric(record, "top1")
    assert tau is not None
    assert top1 is not None
    assert tau["n"] == 27
    assert top1["selected_on"] == f"{method}, untrained"


@pytest.mark.invariant("zero-cost", 11)
def test_a_large_space_is_searched(run_tiny: RunTiny) -> None:
    record = run_tiny("naswot+evolution[generations=2,population=5,parents=2]", space="nb201", target="cifar10")
    assert metric(record, "params") is not None
    assert Tiny().name not in record["recipe"]["space"]


def test_more_images_than_there_are_are_refused(tmp_path: Any) -> None:
    message = r"zico\[batch_size=21\] looks at 42 training images, and there are 40\."
    with pytest.raises(BadInput, match=message):
        prepare(resolve("zico[batch_size=21]", "nb201", preset="test"), tmp_path)
