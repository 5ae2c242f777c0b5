"""What every search space can do, tried on both built-in ones and on made-up ones."""

from __future__ import annotations

import itertools
import random
from functools import cached_property
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from nasbench_cells.nb201 import NB201
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, BadInput, SearchSpace


class Made(SearchSpace):
    """A space with any option counts, for its base class's own behaviour."""

    name: ClassVar[str] = "made"
    counts: tuple[int, ...] = (2, 3)

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {f"d{i}": tuple(f"o{j}" for j in range(n)) for i, n in enumerate(self.counts)}

    def cost(self, arch: Arch) -> dict[str, int]:
        return {"params": 5 + sum(arch)}

    def supernet(self) -> torch.nn.Module:
        raise NotImplementedError

    def build(self, arch: Arch) -> torch.nn.Module:
        raise NotImplementedError


made = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(lambda counts: Made(counts=tuple(counts)))
spaces = st.one_of(st.just(NB201()), st.just(Tiny()), made)


@st.composite
def places(draw: Any, restricted: bool = True) -> tuple[SearchSpace, Arch]:
    """A space, perhaps a part of one, and an architecture in it."""
    space: SearchSpace = draw(spaces)
    if restricted and draw(st.booleans()):
        some = {
            name: draw(st.lists(st.sampled_from(options), min_size=1, unique=True))
            for name, options in zip(space.decisions, space.options, strict=True)
            if draw(st.booleans())
        }
        space = space.restrict(some)
    return space, tuple(draw(st.sampled_from(options)) for options in space.options)


rngs = st.integers(0, 10**6).map(random.Random)


def distance(a: Arch, b: Arch) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------------- text and numbers


@given(places())
def test_text_and_number_go_there_and_back(place: tuple[SearchSpace, Arch]) -> None:
    space, arch = place
    assert space.parse(space.format(arch)) == arch
    assert space.from_number(space.number(arch)) == arch
    assert space.parse(str(space.number(arch))) == arch
    assert space.root.parse(space.format(arch)) == arch  # a restriction renames nothing
    assert space.root.number(arch) == space.number(arch)


@given(spaces, st.data())
def test_every_number_of_the_space_is_one_architecture(space: SearchSpace, data: Any) -> None:
    number = data.draw(st.integers(0, space.size - 1))
    assert space.from_number(number) in space
    assert space.number(space.from_number(number)) == number
    for outside in (-1, space.size, space.size * 7 + 3):
        with pytest.raises(BadInput, match=f"from 0 to {space.size - 1}"):
            space.from_number(outside)
        with pytest.raises(BadInput, match=f"below {space.size}"):
            space.parse(str(outside))


@given(made)
def test_numbers_count_through_the_space_in_its_order(space: SearchSpace) -> None:
    assert [space.number(arch) for arch in space.architectures()] == list(range(space.size))


@given(st.sampled_from([NB201(), Tiny(), Made()]), st.text(max_size=60))
def test_any_other_text_is_refused_in_a_sentence(space: SearchSpace, text: str) -> None:
    assume(not text.isdecimal())  # a number may be one of the space's
    with pytest.raises(BadInput, match=space.name):
        space.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "layer0=skip layer1=skip",
        "layer0=skip layer1=skip layer2=skip layer3=skip",
        "layer0=skip layer0=linear layer1=skip layer2=skip",
        "layer0=skip layer1=skip layer2=jump",
        "layer0 layer1 layer2",
    ],
)
def test_missing_doubled_and_unknown_words_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="layer0=skip layer1=skip layer2=skip"):
        Tiny().parse(text)


# ---------------------------------------------------------------------- moving about


@given(places(), rngs)
def test_samples_stay_inside(place: tuple[SearchSpace, Arch], rng: random.Random) -> None:
    space, _ = place
    assert all(space.sample(rng) in space for _ in range(10))


@given(places(), rngs)
def test_a_mutation_changes_exactly_one_decision(place: tuple[SearchSpace, Arch], rng: random.Random) -> None:
    space, arch = place
    assume(space.size > 1)
    mutant = space.mutate(arch, rng)
    assert mutant in space
    assert distance(mutant, arch) == 1


@given(places(), rngs)
def test_a_child_takes_each_decision_from_a_parent(place: tuple[SearchSpace, Arch], rng: random.Random) -> None:
    space, arch = place
    other = space.sample(rng)
    child = space.crossover(arch, other, rng)
    assert child in space
    assert all(c in pair for c, pair in zip(child, zip(arch, other, strict=True), strict=True))
    assert space.crossover(arch, arch, rng) == arch


@given(places())
def test_neighbours_are_all_that_differ_in_one_decision(place: tuple[SearchSpace, Arch]) -> None:
    space, arch = place
    found = list(space.neighbours(arch))
    assert len(set(found)) == len(found) == sum(len(options) - 1 for options in space.options)
    assert all(n in space and distance(n, arch) == 1 for n in found)
    assert all(arch in space.neighbours(n) for n in found)


def test_mutation_and_crossover_reach_everything_they_may() -> None:
    space, rng = Tiny(), random.Random(0)
    assert {space.mutate((0, 1, 2), rng) for _ in range(200)} == set(space.neighbours((0, 1, 2)))
    assert {space.crossover((0, 0, 0), (1, 2, 1), rng) for _ in range(200)} == set(
        itertools.product((0, 1), (0, 2), (0, 1))
    )


# ---------------------------------------------------------------------- parts of a space


@given(places())
def test_a_part_holds_exactly_what_its_restriction_allows(place: tuple[SearchSpace, Arch]) -> None:
    space, arch = place
    assert arch in space
    assert arch in space.root
    assert space.root.size == len(list(space.root.architectures())) >= space.size
    assert space.root.allowed == {}
    if space.root.size < 3000:
        inside = [a for a in space.root.architectures() if a in space]
        assert inside == list(space.architectures())
        assert len(inside) == space.size


@given(places())
def test_parts_by_one_decision_partition_the_space(place: tuple[SearchSpace, Arch]) -> None:
    space, arch = place
    for name, options in zip(space.decisions, space.options, strict=True):
        parts = [space.restrict({name: [option]}) for option in options]
        assert sum(part.size for part in parts) == space.size
        assert sum(arch in part for part in parts) == 1


@pytest.mark.parametrize("allowed", [{"layer7": [0]}, {"layer0": [3]}, {"layer0": [-1]}, {"layer0": []}])
def test_a_restriction_to_what_is_not_there_is_refused(allowed: dict[str, list[int]]) -> None:
    with pytest.raises(BadInput, match="tiny has no decision"):
        Tiny().restrict(allowed)


def test_a_part_of_a_part_is_a_part_of_both() -> None:
    part = Tiny().restrict({"layer0": [2, 0, 2]})
    assert part.options[0] == (0, 2)
    assert part.restrict({"layer1": [1]}).options == ((0, 2), (1,), (0, 1, 2))
    with pytest.raises(BadInput, match="layer0"):
        part.restrict({"layer0": [1]})


@pytest.mark.parametrize("thing", [(0, 0), (0, 0, 0, 0), (0, 0, 3), (0, 0, -1), [0, 0, 0], "000", None])
def test_what_is_no_architecture_is_not_in_the_space(thing: object) -> None:
    assert thing not in Tiny()


# ---------------------------------------------------------------------- costs and copies


@given(places())
def test_the_range_of_a_cost_is_that_of_the_whole_space(place: tuple[SearchSpace, Arch]) -> None:
    space, arch = place
    for name, value in space.cost(arch).items():
        low, high = space.cost_range(name)
        assert low <= value <= high
        assert (low, high) == space.root.cost_range(name)
    if isinstance(space, Made):
        assert space.cost_range("params") == (5, 5 + sum(n - 1 for n in space.counts))


def test_a_copy_keeps_the_rest_and_is_checked() -> None:
    part = NB201(channels=4).restrict({"1<-0": [0]})
    wider = part.with_(channels=8)
    assert (wider.channels, wider.allowed, part.channels) == (8, {"1<-0": [0]}, 4)
    assert wider.cost((0,) * 6)["params"] > part.cost((0,) * 6)["params"]
    with pytest.raises(ValueError, match="channels"):
        part.with_(channels=0)
