"""Every `paper` preset: on NAS-Bench-201 its steps and rates, exactly; two real steps at full size of every method."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from nasbench_cells.nb201 import NB201

from nasbench import Arch, BadInput, Run, hookimpl
from nasbench.data import Dataset, Images, Split
from nasbench.harness import execute, prepare
from nasbench.plugins import discover, load
from nasbench.recipe import Recipe, preset_values, resolve
from nasbench.tables import Column, Table, stored_path
from tests.conftest import Install

pytestmark = pytest.mark.slow

SMALL, LARGE = (0,) * 6, (3,) * 6
#: Steps of an epoch: 25,000 images, 64 at a time.
EPOCH = 391


class Paper(NamedTuple):
    """What the paper's setting of a method comes to."""

    steps: list[int]
    """Of each supernet that is trained."""
    rates: dict[Arch, tuple[float, float, float]]
    """At the first, the middle and the last step, by subnet."""
    subnets: int
    """A step."""
    clip: float | None


def cosine(steps: int) -> dict[Arch, tuple[float, float, float]]:
    """0.025, half of it, and (1 + cos(pi (T-1)/T))/2 of it, for every subnet."""
    last = 0.025 * math.sin(math.pi / 2 / steps) ** 2  # the same, without the cancellation
    return {SMALL: (0.025, 0.0125, last), LARGE: (0.025, 0.0125, last)}


def calr(steps: int) -> dict[Arch, tuple[float, float, float]]:
    """(1 - t/T)^4 of 0.025 for the smallest, (1 - t/T)^0.25 for the largest."""
    return {a: (0.025, 0.025 * 0.5**g, 0.025 * steps**-g) for a, g in ((SMALL, 4.0), (LARGE, 0.25))}


#: Packages whose methods have numbers of their own below.
HERE = ("nasbench_oneshot", "nasbench_search")
#: And those that train no supernet: they have no step with a loss.
UNTRAINED = ("nasbench_zerocost", "nasbench_predictors")
SPOS, FAIRNAS, FSNAS = 250 * EPOCH, 200 * EPOCH, 300 * EPOCH
TRAINED = {
    "spos": Paper([97_750], cosine(SPOS), 1, 5.0),
    "spos+calr+ms": Paper([97_750], calr(SPOS), 1, 5.0),
    "fairnas": Paper([78_200], cosine(FAIRNAS), 5, None),
    "fairnas+calr+ms": Paper([78_200], calr(FAIRNAS), 5, None),
    "fsnas": Paper([117_300] * 5, cosine(FSNAS), 1, 5.0),
    "fsnas+calr+ms": Paper([117_300] * 5, calr(FSNAS), 1, 5.0),
    "spos+ms+proportional": Paper([97_750], cosine(SPOS), 1, 5.0),
    "spos+mgcs+gradient-deviation": Paper([97_750], cosine(SPOS), 4, 5.0),
}


class Noise(Dataset):
    """As many images as CIFAR-10 has, of its size."""

    target = "cifar10"

    def load(self) -> Images:
        return noise()


class LittleNoise(Dataset):
    """A few of them."""

    target = "cifar10"

    def load(self) -> Images:
        return noise(4_400)


#: CIFAR-10's, which files of superclasses name.
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@cache
def noise(count: int = 50_000) -> Images:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, 32, 32), np.uint8))
    labels = torch.arange(count) % 10
    test = Split(images[:100].clone(), labels[:100].clone())
    return Images(f"noise {count}", "cifar10", CLASSES, {"train": Split(images, labels), "test": test})


DATASETS = {"noise": Noise, "little-noise": LittleNoise}


@pytest.fixture(autouse=True)
def benchmark(home: Path, install: Install) -> None:
    """Noise in the place of CIFAR-10, and a table of noise."""
    install("noise", datasets={n: f"tests.test_paper_presets:{c.__name__}" for n, c in DATASETS.items()})
    rng = np.random.default_rng(1)
    columns = {Column("cifar10", split, 200, "mean"): rng.uniform(10, 95, 15_625) for split in ("valid", "test")}
    few = np.isin(np.arange(15_625), rng.permutation(15_625)[:327])
    Table("nb201", NB201(), np.arange(15_625), columns, {"official327": few}).save(stored_path("nb201"))


def paper(method: str, **train: Any) -> Recipe:
    return resolve(method, "nb201", dataset="noise", preset="paper", sets={"train": train, "engine": {"threads": 1}})


def trained(run: Run) -> list[Run]:
    """Where supernets are trained: in the run, or in its parts."""
    return list(run.parts.values()) or [run]


@pytest.mark.parametrize("method", TRAINED)
def test_steps_and_rates(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = prepare(paper(method), tmp_path)
    expected, asked = TRAINED[method], list[int]()

    def no_steps(self: Run, total: int) -> Iterator[int]:
        asked.append(total)
        return iter(())

    monkeypatch.setattr(Run, "steps", no_steps)
    run.hook.train(run=run)
    assert asked == expected.steps
    for part in trained(run):
        for arch, rates in expected.rates.items():
            part.total_steps = total = expected.steps[0]
            found = []
            for part.step in (0, total // 2, total - 1):
                found += part.hook.learning_rates(run=part, archs=[arch])
            assert found == pytest.approx(rates, rel=1e-9)  # the cosine near pi loses six digits


@pytest.mark.parametrize("method", TRAINED)
def test_two_steps_at_full_size(method: str, tmp_path: Path) -> None:
    watch = TwoSteps()
    run, _ = prepare(paper(method, batch_size=2), tmp_path, [watch])
    expected, t = TRAINED[method], run.recipe.train
    assert (t.lr, t.momentum, t.nesterov, t.weight_decay, t.clip) == (0.025, 0.9, True, 5e-4, expected.clip)
    assert len(run.subset()) == 327
    with pytest.raises(Enough):
        run.hook.train(run=run)
    (part,) = (part for part in trained(run) if part.net is not None)  # of fsnas the first
    assert sum(p.numel() for p in part.net.parameters()) == 1_692_474
    assert [len(archs) for archs in watch.archs] == [expected.subnets] * 2
    assert all(math.isfinite(loss) and loss > 1 for loss in watch.losses)
    before, after = watch.weights
    moved = {name for name in before if not before[name].equal(after[name])}
    assert {"stem.weight", "head.weight"} <= moved
    assert len(moved) < len(before)  # what no subnet used is left alone
    if method == "fairnas":  # every operation of every edge but those that a subnet does not use
        assert len(moved) > 0.5 * len(before)


class Enough(Exception):
    """Two steps were taken."""


class TwoSteps:
    """Ends the training after two steps, and remembers what was before and after."""

    def __init__(self) -> None:
        self.archs: list[list[Arch]] = []
        self.losses: list[float] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    @hookimpl(wrapper=True, tryfirst=True)
    def sample_archs(self, run: Run) -> Any:
        if not self.archs:
            self.weights.append({n: p.detach().clone() for n, p in run.net.named_parameters()})
        archs = yield
        self.archs.append(archs)
        return archs

    @hookimpl
    def progress(self, run: Run, done: int) -> None:
        self.losses.append(float(run.info["loss"]))
        if done == 2:
            self.weights.append({n: p.detach().clone() for n, p in run.net.named_parameters()})
            raise Enough


@pytest.mark.parametrize(("method", "queries"), [("random-search", 100), ("regularized-evolution", 200)])
def test_searches_on_the_table(method: str, queries: int, tmp_path: Path) -> None:
    record, _ = execute(paper(method), tmp_path)
    curve = next(m for m in record["results"][0]["metrics"] if m["name"] == "anytime_valid")
    assert curve["n"] == queries


@pytest.mark.parametrize("method", ["synflow", "snip", "grasp", "jacob-cov", "naswot", "zico", "params", "madds"])
def test_an_untrained_network_is_judged_at_full_size(method: str, tmp_path: Path) -> None:
    run, _ = prepare(paper(method), tmp_path)
    assert run.space.cost(LARGE)["params"] == 1_531_546
    assert len(run.subset()) == 327
    assert getattr(run.plugins[method], "batch_size", 64) == (128 if method == "naswot" else 64)
    small, large = run.stage("score", lambda: run.hook.score(run=run, archs=[SMALL, LARGE]))
    assert -math.inf < small < large or method in ("snip", "grasp")  # these need not prefer the larger
    assert math.isfinite(large)


def test_the_paper_settings_of_what_trains_no_supernet() -> None:
    weak = paper("weaknas").options["weaknas"]
    assert (weak["initial"], weak["batch"], weak["top"], weak["queries"]) == (100, 10, 100, 1000)
    assert (weak["predictor"], weak["hidden"], weak["iterations"]) == ("mlp", [1000] * 4, 100)
    contrastive = paper("ctnas").options["ctnas"]
    assert (contrastive["labelled"], contrastive["iterations"], contrastive["width"]) == (423, 10_000, 128)
    perturbed = paper("zero-cost-pt").options["zero-cost-pt"]
    assert (perturbed["candidates"], perturbed["validation_batches"]) == (10, 100)


def test_selection_and_retraining() -> None:
    options = paper("spos+evolution+retrain").options
    assert options["evolution"] == {
        "generations": 20,
        "population": 50,
        "parents": 10,
        "crossover": 0.5,
        "mutation": 0.1,
    }
    assert options["retrain"] == {
        "epochs": 200,
        "batch_size": 256,
        "lr": 0.1,
        "weight_decay": 5e-4,
        "nesterov": True,
        "clip": None,
        "augment": None,
        "drop_path": 0,
        "auxiliary": 0,
        "scheduler": "cosine",
    }
    assert paper("spos+random").options["random"] == {"samples": 1000}


def test_two_steps_of_retraining_at_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nasbench import Choice

    asked, run = list[int](), prepare(paper("random-search+retrain"), tmp_path)[0]
    steps = Run.steps
    monkeypatch.setattr(Run, "steps", lambda self, total: asked.append(total) or iter(()))  # type: ignore[func-returns-value]
    plugin: Any = run.plugins["retrain"]
    plugin.retrain(run, 0, Choice(LARGE))
    assert asked == [200 * 98]  # 25,000 images, 256 at a time
    run.total_steps = asked[0]
    rates = []
    for run.step in (0, 9_800, 19_599):
        rates.append(plugin.rate(run, Choice(LARGE)))
    assert rates == pytest.approx([0.1, 0.05, 0.1 * math.sin(math.pi / 2 / 19_600) ** 2], rel=1e-9)
    monkeypatch.setattr(Run, "steps", steps)
    watch = TwoSteps()
    run, _ = prepare(paper("random-search+retrain[batch_size=2]"), tmp_path, [watch])
    with pytest.raises(Enough):
        run.plugins["retrain"].retrain(run, 0, Choice(LARGE))  # type: ignore[attr-defined]
    assert sum(p.numel() for p in run.net.parameters()) == NB201().cost(LARGE)["params"] == 1_531_546
    assert all(math.isfinite(loss) for loss in watch.losses)


OTHERS = [name for name, entry in discover("method").items() if not entry.value.startswith(HERE + UNTRAINED)]


@pytest.mark.parametrize("method", OTHERS)
def test_two_steps_of_every_other_method_at_full_size(method: str, tmp_path: Path) -> None:
    """On the first space that has a `paper` preset and on which it is not refused."""
    refusals = []
    for space in discover("space"):
        if not preset_values(load("space", space), space, "paper", space):
            continue
        watch = TwoSteps()
        sets = {"train": {"batch_size": 2}, "engine": {"threads": 1}}
        try:
            recipe = resolve(method, space, dataset="little-noise", preset="paper", sets=sets)
            if recipe.data.size:  # 224 pixels of noise would take gigabytes
                recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"size": 64})})
            run, _ = prepare(recipe, tmp_path, [watch])
        except BadInput as error:
            refusals.append(f"{space}: {error}")
            continue
        with pytest.raises(Enough):
            run.hook.search(run=run)
        assert len(watch.losses) == 2
        assert all(math.isfinite(loss) for loss in watch.losses)
        return
    pytest.fail(f"{method} has no paper preset anywhere. {' '.join(refusals)}")


def test_no_method_of_these_packages_is_missing() -> None:
    terms = {
        name
        for kind in ("method", "modifier")
        for name, entry in discover(kind).items()
        if entry.value.startswith(HERE)
    }
    tested = {term for label in TRAINED for term in label.split("+")}
    assert terms == tested | {"random-search", "regularized-evolution", "evolution", "random", "retrain"}
