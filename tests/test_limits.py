"""`select.within`: whoever selects keeps to it, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nasbench_tiny.tiny import Tiny

from nasbench import BadInput
from nasbench.budget import Budget, Window
from nasbench.costs import CostColumn, CostTable
from nasbench.harness import prepare
from nasbench.recipe import parse_set, resolve
from nasbench.records import metric
from tests.conftest import RunTiny

SPACE = Tiny()
RASPI4 = CostColumn("digits", "latency", "raspi4")


@pytest.fixture
def costs(home: Path) -> np.ndarray:
    """A latency for each of the 27, in ms, unrelated to anything."""
    values = np.random.default_rng(0).permutation(27) + 1.0
    CostTable("made-up", "tiny", np.arange(27), {RASPI4: values}).save(home / "costs" / "made-up.safetensors")
    return values


def latency(costs: np.ndarray, text: str) -> float:
    return float(costs[SPACE.number(SPACE.parse(text))])


@pytest.mark.parametrize("method", ["spos", "spos+evolution", "spos+random", "naswot"])
@pytest.mark.parametrize("limit", ["latency.raspi4=5ms", "madds=0.0017M", "madds=1600..1.7K"])
def test_a_selection_keeps_to_the_limit(run_tiny: RunTiny, costs: np.ndarray, method: str, limit: str) -> None:
    record = run_tiny(method, f"select.within={limit}")
    text, madds = record["results"][0]["arch"], metric(record, "madds")
    assert madds is not None
    least = 1600 if ".." in limit else 0
    assert latency(costs, text) <= 5 if "latency" in limit else least <= madds["value"] <= 1700
    assert record["recipe"]["select"] == {"within": [str(Window.parse(limit))]}


@pytest.mark.parametrize("method", ["random-search[queries=30]", "regularized-evolution", "weaknas", "ctnas"])
def test_a_search_on_the_table_looks_only_within(run_tiny: RunTiny, costs: np.ndarray, method: str) -> None:
    seen: list[Any] = []

    class Watch:
        from nasbench import hookimpl as _hookimpl

        @_hookimpl
        def run_finished(self, run: Any) -> None:
            seen.extend(run.queries)

    record = run_tiny(method, "select.within=[latency.raspi4=20ms, params=0.0021M]", observers=[Watch()])
    for arch in {SPACE.parse(record["results"][0]["arch"]), *seen}:
        assert costs[SPACE.number(arch)] <= 20
        assert SPACE.with_(image=(1, 8, 8)).cost(arch)["params"] <= 2100


def test_the_best_of_those_within_is_chosen(run_tiny: RunTiny, costs: np.ndarray) -> None:
    record = run_tiny("random-search[queries=27]", "select.within=latency.raspi4=9ms")
    table = SPACE.ground_truth("digits")
    assert table is not None
    inside = [arch for arch in table.architectures() if costs[SPACE.number(arch)] <= 9]
    best = max(inside, key=lambda arch: table.query([arch], "valid", "digits"))
    assert record["results"][0]["arch"] == SPACE.format(best)


def test_a_ranking_is_of_all_the_same(run_tiny: RunTiny, costs: np.ndarray) -> None:
    limited, free = run_tiny("params", "select.within=latency.raspi4=9ms"), run_tiny("params")
    assert metric(limited, "kendall_tau") == metric(free, "kendall_tau")
    assert "select" not in free["recipe"]
    assert limited["id"] != free["id"]


@pytest.mark.parametrize(
    ("method", "limit", "said"),
    [
        ("params", "latency.raspi5=9ms", "Unknown cost 'latency.raspi5'; did you mean 'latency.raspi4'?"),
        (
            "params",
            "latency.raspi4=0.5ms",
            "None of the 27 architectures of table is within latency.raspi4=0.5ms, where",
        ),
        ("params", "latency.raspi4=9.25ms..9.5ms", "within latency.raspi4=9.25ms..9.5ms, where they have 1 to 27."),
        ("params", "madds=2K..1K", "Nothing is within 'madds=2K..1K': write the smaller value first."),
        ("params", "madds=1K..", "Cannot read the budget 'madds='; write it like madds=300M."),
        ("random-ws", "madds=1M", "does not select within limits; leave select.within out."),
        ("enas", "madds=1M", "does not select within limits"),
        ("params", "latency.raspi4=9", "Cannot read the budget 'latency.raspi4=9'; write it like latency.raspi4=12ms."),
        ("params", "keep=0.4", "Unknown cost 'keep'"),
        ("params", "latencey.raspi4=1ms", "Unknown cost 'latencey.raspi4'"),
        ("params", "3", r"select.within = 3 does not fit: it should be a valid list"),
    ],
)
def test_what_cannot_be_kept_is_refused(costs: Any, method: str, limit: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        prepare(resolve(method, "tiny", preset="test", sets=parse_set([f"select.within={limit}"])), tmp_path)
    assert said.lower() in str(caught.value).lower()
    assert list(tmp_path.iterdir()) == []


def test_a_search_is_held_to_what_the_space_has_not_to_the_subset(tmp_path: Path) -> None:
    """Of 8 architectures none lies in the window, of a thousand some do; in another none."""

    def start(within: str, method: str) -> None:
        sets = {"select": {"within": within}}
        prepare(resolve(method, "mobilenet", preset="test", sets=sets), tmp_path)

    with pytest.raises(
        BadInput, match=r"None of the 8 architectures of random:8 is within madds=200K\.\.267K, where they"
    ):
        start("madds=200K..267K", "spos")
    start("madds=200K..267K", "spos+evolution")
    start("madds=200K..267K", "fsnas+evolution")  # whose parts select nothing
    with pytest.raises(BadInput, match="None of the 1000 architectures drawn at random is within madds=1K"):
        start("madds=1K", "spos+evolution")


def test_without_a_table_of_costs_it_says_how_to_add_one(tmp_path: Path) -> None:
    recipe = resolve("params", "tiny", preset="test", sets=parse_set(["select.within=latency.raspi4=9ms"]))
    with pytest.raises(BadInput, match="no measured costs of tiny are at hand; add them with `nasbench data add`"):
        prepare(recipe, tmp_path)


def test_a_cost_of_another_dataset_is_none(home: Path, tmp_path: Path) -> None:
    other = {CostColumn("cifar10", "latency", "raspi4"): np.ones(27)}
    CostTable("made-up", "tiny", np.arange(27), other).save(home / "costs" / "made-up.safetensors")
    recipe = resolve("params", "tiny", preset="test", sets=parse_set(["select.within=latency.raspi4=9ms"]))
    with pytest.raises(BadInput, match=r"latency\.raspi4 is not known for digits; it is for cifar10"):
        prepare(recipe, tmp_path)


@pytest.mark.parametrize(
    ("text", "name", "value", "back"),
    [
        ("latency.raspi4=12ms", "latency.raspi4", 12.0, "latency.raspi4=12ms"),
        ("energy.eyeriss = .50mJ", "energy.eyeriss", 0.5, "energy.eyeriss=0.5mJ"),
        ("madds=.03G", "madds", 3e7, "madds=30M"),
    ],
)
def test_what_is_read(text: str, name: str, value: float, back: str) -> None:
    assert Budget.parse_cost(text) == (name, value)
    assert str(Budget.parse_cost(text)) == back
