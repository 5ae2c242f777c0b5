"""Zero-Cost-PT: operations are taken out of an untrained mixture; what hurts the proxy most stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nasbench_cells.darts import DARTS
from nasbench_cells.nb201 import NB201
from nasbench_tiny.tiny import Tiny
from nasbench_zerocost.zero_cost_pt import ZeroCostPT

from nasbench import Arch, BadInput, Mixture, hookimpl
from nasbench.harness import prepare
from nasbench.recipe import resolve
from nasbench.records import metric
from tests.conftest import RunTiny


class Watch:
    """Keeps the run."""

    @hookimpl
    def run_started(self, run: Any) -> None:
        self.run = run


def spied(monkeypatch: pytest.MonkeyPatch, worth: Any) -> list[Any]:
    """Let the proxy be `worth(arch or mixture)`; what it was asked, in that order."""
    asked: list[Any] = []

    def proxy(self: ZeroCostPT, run: Any, arch: Arch | Mixture, batch: Any) -> float:
        asked.append(arch)
        return float(worth(arch))

    monkeypatch.setattr(ZeroCostPT, "proxy", proxy)
    return asked


def linear(arch: Arch | Mixture) -> float:
    """Worth more with option 2 of decision 0, option 0 of decision 1 and option 1 of decision 2."""
    best = (2, 0, 1)
    if isinstance(arch, tuple):
        return sum(a == b for a, b in zip(arch, best, strict=True))
    return sum(float(w[b]) for w, b in zip(arch, best, strict=True))


@pytest.mark.invariant("zero-cost-pt", 1)
def test_the_operation_whose_removal_hurts_most_stays(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spied(monkeypatch, linear)
    record = run_tiny("zero-cost-pt[candidates=1,validation_batches=1]")
    assert record["results"][0]["arch"] == Tiny().format((2, 0, 1))
    mixtures = [m for m in asked if not isinstance(m, tuple)]
    assert len(mixtures) == 9
    third = 1 / 3
    for i, mixture in enumerate(mixtures):  # edge by edge, one operation out, edges decided before one-hot
        silent = [float(w.min()) for w in mixture if 0 < float(w.min()) < 1e-19]
        assert len(silent) == 1
        decided = [w for w in mixture if sorted(w.tolist()) == [0.0, 0.0, 1.0]]
        assert len(decided) == i // 3
        others = [v for w in mixture for v in w.tolist() if v not in (0.0, 1.0) and v > 1e-19]
        assert others == pytest.approx([third] * (8 - 3 * (i // 3)))


@pytest.mark.invariant("zero-cost-pt", 2)
def test_candidates_are_compared_on_all_batches(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spied(monkeypatch, lambda arch: -sum(arch) if isinstance(arch, tuple) else hash(str(arch)) % 997)
    record = run_tiny("zero-cost-pt[candidates=4,validation_batches=3]")
    compared = [arch for arch in asked if isinstance(arch, tuple)]
    assert len(compared) == 12
    assert all(len(set(compared[i : i + 3])) == 1 for i in range(0, 12, 3))
    assert record["results"][0]["arch"] == Tiny().format(min(compared, key=sum))


@pytest.mark.invariant("zero-cost-pt", 3)
def test_a_silenced_operation_adds_nothing_but_counts(run_tiny: RunTiny) -> None:
    watch = Watch()
    run_tiny("zero-cost-pt", observers=[watch])
    run, images = watch.run, torch.randn(8, *watch.run.space.image)
    whole = [torch.full((3,), 1 / 3) for _ in range(3)]
    logits, scores = {}, {}
    from nasbench_zerocost.naswot import naswot

    for removed in ("silenced", "absent"):
        mixture = ZeroCostPT(removed=removed).without(whole, 1, [2])  # type: ignore[arg-type]
        with torch.no_grad():
            logits[removed] = run.net(images, [mixture])
        scores[removed] = naswot(lambda x, m=mixture: run.net(x, [m]), images)
    assert torch.equal(logits["silenced"], logits["absent"])
    assert scores["silenced"] > scores["absent"]  # more rectifiers agree or not


@pytest.mark.invariant("zero-cost-pt", 4)
def test_nothing_is_trained(run_tiny: RunTiny) -> None:
    watch = Watch()
    record = run_tiny("zero-cost-pt", observers=[watch])
    assert list(record["measured"]["seconds"]) == ["perturb"]
    run = watch.run
    run._stage = "perturb"
    fresh = run.hook.build_supernet(run=run).state_dict()
    assert all(value.equal(fresh[name]) for name, value in run.net.state_dict().items())
    top1 = metric(record, "top1")
    assert top1 is not None
    assert top1["selected_on"] == "naswot of the untrained supernet, 2 candidates"


@pytest.mark.invariant("zero-cost-pt", 5)
def test_of_a_node_those_edges_stay_whose_removal_hurts_most(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the DARTS space each edge is worth more than those before it, so a node keeps its last two."""
    spied(monkeypatch, lambda m: 0 if isinstance(m, tuple) else sum((e + 1) * float(w.max()) for e, w in enumerate(m)))
    record = run_tiny("zero-cost-pt[candidates=1]", space="darts")
    space = DARTS()
    arch = dict(zip(space.choices, space.parse(record["results"][0]["arch"]), strict=True))
    assert len(space.relaxed) == 28
    kept = {name: space.choices[name][o] for name, o in arch.items() if name.endswith("_inputs")}
    cells = ("normal", "reduce")
    assert kept == {f"{cell}:{node}_inputs": f"{node - 2},{node - 1}" for cell in cells for node in range(2, 6)}


def test_a_space_that_does_not_mix_is_refused(tmp_path: Any) -> None:
    with pytest.raises(BadInput, match="takes operations out of a mixture; vgg16 does not mix them"):
        prepare(resolve("zero-cost-pt", "vgg16", preset="test"), tmp_path)


@pytest.mark.invariant("zero-cost-pt", 6)
def test_on_nas_bench_201_it_finds_an_architecture(run_tiny: RunTiny) -> None:
    record = run_tiny("zero-cost-pt", space="nb201")
    assert NB201().parse(record["results"][0]["arch"])
