"""FSNAS: the space in parts, each with a supernet of its own that is trained and asked alone."""

from __future__ import annotations

import copy
import gc
import math
import random
import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nasbench_cells.nb201 import NB201
from nasbench_oneshot.calr import CaLR
from nasbench_oneshot.fsnas import FSNAS

from nasbench import Arch, BadInput, Run, hookimpl, records
from nasbench.data import Batch
from nasbench.harness import prepare
from nasbench.recipe import resolve
from nasbench.records import metric
from tests.conftest import RunTiny
from tests.nasbench_oneshot.conftest import Tensors, Trained, Watch, algorithm, clone, close, cosine, same
from tests.nasbench_oneshot.test_calr import tiny_rate
from tests.test_shapes import EVERY_STEP, Killer, killed_again_and_again

Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A run that has not begun: `make("fsnas+ms", "nb201", seed=1)`."""

    def make_(method: str, space: str = "tiny", *observers: Any, seed: int = 0, **sets: dict[str, Any]) -> Run:
        target = "digits" if space == "tiny" else "cifar10"
        recipe = resolve(method, space, preset="test", target=target, seed=seed, sets=sets)
        return prepare(recipe, tmp_path / "runs", observers)[0]

    return make_


class Log:
    """What happened in which part, told by the run's scope."""

    priority = 100

    def __init__(self) -> None:
        self.start: dict[str, Tensors] = {}
        self.batches: dict[str, list[torch.Tensor]] = {}
        self.sampled: dict[str, list[Arch]] = {}
        self.scored: dict[str, list[Arch]] = {}
        self.optimizers: list[weakref.ref[Any]] = []

    @hookimpl(wrapper=True)
    def train_step(self, run: Run, batch: Batch) -> Generator[None, bool, bool]:
        self.start.setdefault(run.scope, clone(dict(run.net.named_parameters())))
        self.batches.setdefault(run.scope, []).append(batch.labels)
        return (yield)

    @hookimpl(wrapper=True)
    def make_optimizer(self) -> Generator[None, Any, Any]:
        optimizer = yield
        self.optimizers.append(weakref.ref(optimizer))
        return optimizer

    @hookimpl(wrapper=True)
    def sample_archs(self, run: Run) -> Generator[None, list[Arch], list[Arch]]:
        archs = yield
        self.sampled.setdefault(run.scope, []).extend(archs)
        return archs

    @hookimpl(wrapper=True)
    def score(self, run: Run, archs: list[Arch]) -> Generator[None, list[float], list[float]]:
        self.scored.setdefault(run.scope, []).extend(archs)
        return (yield)


@pytest.mark.invariant("fsnas", 1)
@pytest.mark.parametrize(
    ("space", "edge", "index", "sizes"),
    [
        ("tiny", "first", 0, [9] * 3),
        ("tiny", "layer1", 1, [9] * 3),
        ("nb201", "first", 0, [3125] * 5),
        ("nb201", "2<-1", 2, [3125] * 5),
        ("nb201", "last", 5, [3125] * 5),
    ],
)
def test_the_parts_partition_the_space(make: Make, space: str, edge: str, index: int, sizes: list[int]) -> None:
    run = make(f"fsnas[edge={edge}]", space)
    parts = [set(part.space.architectures()) for part in FSNAS(edge=edge).parts(run)]
    assert [len(part) for part in parts] == sizes
    assert set.union(*parts) == set(run.space.architectures())  # as the sizes add up, no two overlap
    assert [{arch[index] for arch in part} for part in parts] == [{option} for option in range(len(sizes))]


@pytest.mark.invariant("fsnas", 2)
@pytest.mark.parametrize("method", ["fsnas", "fsnas+calr+ms", "fsnas+proportional"])
def test_in_a_part_the_split_edge_never_changes(make: Make, method: str) -> None:
    log = Log()
    run = make(method.replace("fsnas", "fsnas[edge=layer1]"), "tiny", log, train={"epochs": 8})
    run.hook.train(run=run)
    assert {scope: {a[1] for a in archs} for scope, archs in log.sampled.items()} == {
        f"part-{o}/": {o} for o in (0, 1, 2)
    }
    assert all({a[0] for a in archs} == {a[2] for a in archs} == {0, 1, 2} for archs in log.sampled.values())


@pytest.mark.invariant("fsnas", 3)
@pytest.mark.parametrize("edge", ["first", "last"])
def test_each_architecture_is_scored_once_by_the_part_that_holds_it(make: Make, edge: str) -> None:
    log = Log()
    run = make(f"fsnas[edge={edge}]", "tiny", log)
    run.hook.search(run=run)
    whole = log.scored.pop("")
    assert sorted(whole) == sorted(run.space.architectures())
    index = run.space.decisions.index({"first": "layer0", "last": "layer2"}[edge])
    by_part = {f"part-{o}/": [a for a in run.space.architectures() if a[index] == o] for o in range(3)}
    assert {scope: sorted(archs) for scope, archs in log.scored.items()} == by_part
    for scope, archs in by_part.items():  # and what it said is what counts
        part = run.parts[scope[:-1]]
        assert [run.scores[arch] for arch in archs] == part.hook.score(run=part, archs=archs)


@pytest.mark.invariant("fsnas", 3)
def test_scores_come_back_in_the_order_they_were_asked_for(make: Make) -> None:
    run = make("fsnas")
    run.hook.train(run=run)
    archs = list(run.space.architectures())
    random.Random(0).shuffle(archs)
    scores = run.hook.score(run=run, archs=archs)
    assert scores == [run.hook.score(run=run, archs=[arch])[0] for arch in archs]
    assert len(set(scores)) > 5


def part_of(run: Run, watch: Watch, name: str) -> Trained:
    """Train one part alone."""
    part = {f"part-{o}": part for o, part in enumerate(FSNAS().parts(run))}[name]
    part.hook.train(run=part)
    return Trained(part, watch.steps, watch.start)


@pytest.mark.invariant("fsnas", 4)
@pytest.mark.parametrize("name", ["part-0", "part-2"])
@pytest.mark.parametrize("method", ["fsnas", "fsnas+calr", "fsnas+calr+ms"])
def test_a_part_is_algorithm_1_with_the_extremes_of_the_whole_space(make: Make, method: str, name: str) -> None:
    watch = Watch()
    sets = {"train": {"epochs": 5, "clip": None, "nesterov": False}, "engine": {"precision": "float64"}}
    trained = part_of(make(method, "tiny", watch, watch.inside, **sets), watch, name)
    assert len(trained.steps) == 5 * 4  # the recipe's epochs, for each part
    edge = trained.run.plugins["ms"].decision(trained.run) if "ms" in method else 0  # type: ignore[attr-defined]
    rate = tiny_rate if "calr" in method else cosine
    assert close(trained.weights, algorithm(trained, rate, cluster=lambda archs: archs[0][edge]))


@pytest.mark.invariant("fsnas", 5)
def test_the_smallest_of_a_part_decays_as_its_place_in_the_whole_space_says() -> None:
    part: Any = SimpleNamespace(space=NB201().restrict({"1<-0": [3]}))
    assert min(part.space.cost(arch)["conv_weights"] for arch in part.space.architectures()) == 314_672
    gamma = CaLR().gamma(part, (3, 0, 0, 0, 0, 0))
    assert gamma == pytest.approx(17.799331320 - 1.232654172 * math.log(314_672), abs=1e-7)
    assert gamma == pytest.approx(2.194809, abs=5e-7)  # it would be 4 in a space of its own


@pytest.mark.invariant("fsnas", 6)
def test_ms_splits_a_part_elsewhere_and_the_record_says_where(run_tiny: RunTiny) -> None:
    drawn = set()
    for seed in range(4):
        record = run_tiny("fsnas[edge=layer1]+ms", "train.epochs=1", seed=seed)
        assert metric(record, "ms_edge") is None
        drawn |= {(metric(record, f"ms_edge_part-{o}") or {})["value"] for o in range(3)}
    assert drawn == {0, 2}
    record = run_tiny("fsnas+ms[edge=first]", "train.epochs=1")
    assert [(metric(record, f"ms_edge_part-{o}") or {})["value"] for o in range(3)] == [1, 1, 1]


@pytest.mark.invariant("fsnas", 6)
def test_ms_on_the_split_edge_is_refused_before_anything_is_written(run_tiny: RunTiny, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Unknown decision of tiny 'layer0'"):
        run_tiny("fsnas+ms[edge=layer0]")
    assert not (tmp_path / "runs").exists()


@pytest.mark.invariant("fsnas", 7)
def test_the_parts_share_no_stream_of_randomness(make: Make) -> None:
    log = Log()
    run = make("fsnas", "tiny", log, train={"epochs": 4})
    run.hook.train(run=run)
    starts, batches = list(log.start.values()), [torch.cat(b).tolist() for b in log.batches.values()]
    rest = [[a[1:] for a in archs] for archs in log.sampled.values()]
    assert len(starts) == 3
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        assert not same(starts[i], starts[j])  # fresh weights, not those of one supernet
        assert batches[i] != batches[j]
        assert sorted(batches[i]) == sorted(batches[j])  # the same images
        assert rest[i] != rest[j]


@pytest.mark.invariant("fsnas", 7)
def test_a_part_does_not_depend_on_the_others(make: Make) -> None:
    last = make("fsnas+calr+ms")
    FSNAS().parts(last)[2].hook.train(run=last.parts["part-2"])
    weights = copy.deepcopy(last.parts["part-2"].net.state_dict())
    whole = make("fsnas+calr+ms")
    for folder in whole.folder.rglob("done-*"):
        folder.unlink()
    whole.hook.train(run=whole)
    assert same(weights, whole.parts["part-2"].net.state_dict())


@pytest.mark.invariant("fsnas", 8)
@pytest.mark.parametrize("label", ["fsnas", "fsnas+calr+ms"])
def test_a_killed_run_gives_the_same_record(run_tiny: RunTiny, label: str) -> None:
    undisturbed = run_tiny(label, *EVERY_STEP, observers=[Killer()])
    disturbed, kills = killed_again_and_again(run_tiny, random.Random(0), label, *EVERY_STEP, runs="killed")
    assert kills > 2
    assert records.equal(disturbed, undisturbed)


@pytest.mark.invariant("fsnas", 9)
def test_all_parts_are_ranked_together(run_tiny: RunTiny) -> None:
    record = run_tiny("fsnas")
    assert [m["n"] for m in record["results"][0]["metrics"] if m["name"] == "kendall_tau"] == [27]
    assert set(record["measured"]["seconds"]) == {"part-0/train", "part-1/train", "part-2/train", "score"}


@pytest.mark.invariant("fsnas", 9)
def test_the_pick_is_the_best_of_all(make: Make) -> None:
    run = make("fsnas")
    (choice,) = run.hook.search(run=run)
    assert run.scores[choice.arch] == max(run.scores.values())


@pytest.mark.parametrize("label", ["fsnas+evolution", "fsnas+random[samples=5]", "fsnas+calr+ms+evolution"])
def test_whatever_selects_selects_from_all_parts(run_tiny: RunTiny, label: str) -> None:
    assert run_tiny(label)["results"][0]["metrics"][0]["value"] is not None


@pytest.mark.invariant("fsnas", 10)
def test_a_part_that_is_trained_keeps_its_weights_and_no_momentum(make: Make) -> None:
    log = Log()
    run = make("fsnas+calr+ms", "tiny", log)
    run.hook.train(run=run)
    gc.collect()
    assert [optimizer() for optimizer in log.optimizers] == [None] * 3
    assert all(part.net is not None for part in run.parts.values())


@pytest.mark.invariant("fsnas", 11)
def test_the_paper_trains_every_part_for_300_epochs() -> None:
    train = resolve("fsnas+calr+ms", "nb201", preset="paper", target="cifar10").train
    assert (train.epochs, train.batch_size, train.lr) == (300, 64, 0.025)
    assert (train.momentum, train.weight_decay, train.nesterov, train.clip) == (0.9, 5e-4, True, 5.0)
    options = resolve("fsnas+calr+ms", "nb201", preset="paper", target="cifar10").options
    assert options["fsnas"] == {"edge": "first"}
    assert (options["calr"]["gamma_prime"], options["ms"]["edge"]) == (4, "random")


@pytest.mark.parametrize("preset", ["quick", "cpu"])
def test_the_small_presets_train_all_parts_together_as_long_as_spos(preset: str) -> None:
    spos, fsnas = (resolve(method, "nb201", preset=preset, target="cifar10").train for method in ("spos", "fsnas"))
    assert 5 * fsnas.epochs == spos.epochs


def test_an_edge_that_is_not_there_is_refused(make: Make) -> None:
    with pytest.raises(BadInput, match="Unknown decision of tiny 'layer9'; did you mean 'layer"):
        make("fsnas[edge=layer9]")
