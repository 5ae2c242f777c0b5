"""The MobileNetV3 space without networks: counts, exact costs, encodings, drawing."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nasbench_mobile.mobilenet_v3 import KERNELS, MobileNetV3

from nasbench import Arch, BadInput
from tests.command import nasbench

SPACE = MobileNetV3()
LARGEST, SMALLEST = (2,) * 45, (0,) * 45
archs = st.tuples(*[st.integers(0, 2)] * 45)


def one_hot(arch: Arch) -> torch.Tensor:
    return F.one_hot(torch.tensor(arch), 3).double()


@pytest.mark.invariant("mobilenetv3", 1)
@pytest.mark.parametrize(
    ("text", "classes", "madds", "params"),
    [
        ("ks=7 e=6 d=4", 1000, 566_170_656, 7_664_760),
        ("ks=3 e=3 d=2", 1000, 121_278_672, 3_410_792),
        ("ks=3 e=6 d=4", 1000, 433_141_536, 7_299_960),
        ("ks=7 e=6 d=4", 60, 564_967_456, 6_460_620),
    ],
)
def test_published_costs(text: str, classes: int, madds: int, params: int) -> None:
    space = MobileNetV3(classes=classes)
    cost = space.cost(space.parse(text))
    assert (cost["madds"], cost["params"]) == (madds, params)


@pytest.mark.invariant("mobilenetv3", 1)
def test_squeeze_and_excitation_costs_two_and_a_half_million() -> None:
    assert sum(2 * p.middle(6) * p.squeezed(6) for p in SPACE.places if p.squeeze) == 2_504_448
    assert SPACE.cost_range("madds") == (121_278_672, 566_170_656)


@pytest.mark.invariant("mobilenetv3", 1)
def test_query_answers_at_224_pixels_and_1000_classes(tmp_path: Path) -> None:
    result = nasbench("query", "--space", "mobilenetv3", "ks=7 e=6 d=4", "--json", cwd=tmp_path)
    assert result.code == 0
    assert {"params": 7_664_760, "madds": 566_170_656}.items() <= json.loads(result.out).items()


# ---------------------------------------------------------------------- counting, numbers and text


@pytest.mark.invariant("mobilenetv3", 2)
def test_there_are_2_18e19_architectures_numbered_without_gaps() -> None:
    assert SPACE.size == (9**2 + 9**3 + 9**4) ** 5 == 21_758_655_492_572_485_851
    assert SPACE.number(SMALLEST) == 0
    assert SPACE.number(LARGEST) == SPACE.size - 1
    assert SPACE.from_number(SPACE.size - 1) == LARGEST
    with pytest.raises(BadInput, match="from 0 to 21758655492572485850"):
        SPACE.from_number(SPACE.size)


@pytest.mark.invariant("mobilenetv3", 2)
@given(st.integers(0, SPACE.size - 1))
def test_a_number_is_one_architecture(number: int) -> None:
    arch = SPACE.from_number(number)
    assert SPACE.number(arch) == number
    assert SPACE.canonical(arch) == arch
    assert SPACE.parse(str(number)) == arch


@pytest.mark.invariant("mobilenetv3", 2)
@given(archs, archs)
def test_text_keeps_everything_and_numbers_forget_what_has_no_effect(a: Arch, b: Arch) -> None:
    assert SPACE.parse(SPACE.format(a)) == a
    assert SPACE.from_number(SPACE.number(a)) == SPACE.canonical(a)
    without_effect = {i + n for n in (0, 20) for i in range(20) if i % 4 >= 2 + a[40 + i // 4]}
    other = tuple(b[i] if i in without_effect else o for i, o in enumerate(a))
    assert (SPACE.number(other), SPACE.cost(other), SPACE.encode(other)) == (
        SPACE.number(a),
        SPACE.cost(a),
        SPACE.encode(a),
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ks=7 e=6", "expected a number below 21758655492572485851 or a form like 'ks=7 e=6 d=4'"),
        ("ks=7 e=6 d=4 d=4", "expected a number"),
        ("21758655492572485851", "expected a number below"),
        ("ks=9 e=6 d=4", "ks=9 does not fit; expected values of 3, 5, 7."),
        ("ks=7 e=6 d=4,4", "has 2 values; expected 5, or one for all."),
        ("ks=7 e= d=4", "e= does not fit; expected values of 3, 4, 6."),
    ],
)
def test_what_cannot_be_read(text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        SPACE.parse(text)
    assert sentence in str(error.value)


def test_an_architecture_is_encoded_by_its_blocks() -> None:
    code = SPACE.encode(SPACE.parse("ks=5 e=6 d=2,3,3,3,3"))
    assert code[:24] == [0, 1, 0, 0, 0, 1] * 2 + [0] * 12
    assert len(code) == 120
    assert sum(code) == 2 * (2 + 4 * 3)


# ---------------------------------------------------------------------- the polynomial


@pytest.mark.invariant("mobilenetv3", 4)
@pytest.mark.parametrize("space", [SPACE, MobileNetV3(width=0.3, image=(1, 20, 24), classes=3)], ids=["full", "small"])
def test_the_polynomial_is_the_count_for_every_block_and_every_depth(space: MobileNetV3) -> None:
    every = [SMALLEST[:40] + depths for depths in itertools.product(range(3), repeat=5)]
    for place, kernel, width in itertools.product(range(20), range(3), range(3)):
        arch = space.replace(space.replace(LARGEST, place, kernel), 20 + place, width)
        every += [arch, tuple(1 if i not in (place, place + 20) else o for i, o in enumerate(arch))]
    rng = random.Random(0)
    every += [space.sample(rng) for _ in range(200)]
    found = space.expected_madds(torch.stack([one_hot(arch) for arch in every]))
    assert found.tolist() == [space.cost(arch)["madds"] for arch in every]


@pytest.mark.invariant("mobilenetv3", 4)
def test_between_architectures_the_polynomial_is_the_expectation() -> None:
    """Over independent decisions, of which three are uncertain here: 27 architectures."""
    rng = random.Random(1)
    arch, uncertain = SPACE.sample(rng), (5, 25, 41)  # kernel, width and depth of the second unit
    mixture = one_hot(arch)
    for i in uncertain:
        mixture[i] = torch.tensor([0.5, 0.25, 0.25]).double()
    mean = Fraction(0)
    for options in itertools.product(range(3), repeat=3):
        other = list(arch)
        for i, o in zip(uncertain, options, strict=True):
            other[i] = o
        chance = Fraction(1)
        for o in options:
            chance *= Fraction(1, 2) if o == 0 else Fraction(1, 4)
        mean += chance * SPACE.cost(tuple(other))["madds"]
    assert SPACE.expected_madds(mixture).item() == pytest.approx(float(mean), rel=1e-12)


# ---------------------------------------------------------------------- drawing


def chi_squared(counts: Counter[object], classes: int) -> float:
    expected = sum(counts.values()) / classes
    return sum((counts[key] - expected) ** 2 for key in counts) / expected + (classes - len(counts)) * expected


@pytest.mark.invariant("mobilenetv3", 7)
def test_every_distinct_architecture_is_equally_likely() -> None:
    """In a part with one open block in the third place of unit 1, and that unit's depth: 1 + 4 + 4 = 9."""
    fixed = {name: [0] for name in SPACE.decisions}
    part = SPACE.restrict({**fixed, "k1.3": [0, 2], "e1.3": [1, 2], "d1": [0, 1, 2]})
    assert part.size == len(list(part.architectures())) == 9
    rng = random.Random(0)
    drawn = Counter(part.sample(rng) for _ in range(4500))
    assert set(drawn) == set(part.architectures())
    assert chi_squared(Counter(drawn), 9) < 26.1  # 8 degrees of freedom: above in one draw of a thousand


@pytest.mark.invariant("mobilenetv3", 7)
def test_depths_are_drawn_by_how_many_architectures_have_them() -> None:
    rng = random.Random(0)
    drawn = Counter(SPACE.sample(rng)[40] for _ in range(5000))
    for depth, ways in enumerate((9**2, 9**3, 9**4)):
        share = ways / (9**2 + 9**3 + 9**4)
        assert abs(drawn[depth] - 5000 * share) < 4 * (5000 * share * (1 - share)) ** 0.5


@given(archs)
def test_moves_keep_to_the_options(arch: Arch) -> None:
    rng = random.Random(0)
    assert sum(a != b for a, b in zip(arch, SPACE.mutate(arch, rng), strict=True)) == 1
    child = SPACE.crossover(arch, LARGEST, rng)
    assert all(c in (a, 2) for a, c in zip(arch, child, strict=True))


def test_costs_grow_with_every_option() -> None:
    rng = random.Random(2)
    for _ in range(50):
        arch = SPACE.sample(rng)
        for i, option in enumerate(arch):
            if option < 2 and (i >= 40 or i % 20 in {place for place, _, _ in SPACE.blocks(arch)}):
                bigger = SPACE.cost(SPACE.replace(arch, i, option + 1))
                assert all(bigger[name] > value for name, value in SPACE.cost(arch).items())
    assert KERNELS == (3, 5, 7)
