"""NAS-Bench-201 without training: encodings, costs counted on the networks, equal cells."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_cells.nb201 import CONV1, CONV3, EDGES, NB201, NONE, OPERATIONS, POOL, SKIP
from torch import Tensor, nn

from nasbench import Arch, BadInput

SPACE = NB201()
ARCHS = list(SPACE.architectures())
archs = st.tuples(*[st.integers(0, 4)] * 6)


# ---------------------------------------------------------------------- encodings


@pytest.mark.invariant("nb201", 1)
def test_all_15625_numbers_and_strings_go_there_and_back() -> None:
    assert len(ARCHS) == SPACE.size == 15_625
    assert OPERATIONS == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    for number, arch in enumerate(ARCHS):
        assert SPACE.number(arch) == number
        assert SPACE.from_number(number) == arch
        assert SPACE.parse(SPACE.format(arch)) == arch
        assert SPACE.parse(str(number)) == arch


@pytest.mark.invariant("nb201", 1)
@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"),
        (11_718, "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"),
        (15_624, "|avg_pool_3x3~0|+|avg_pool_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|avg_pool_3x3~1|avg_pool_3x3~2|"),
        # Base 5: 3 1 2 0 4 1, edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2.
        (10_271, "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|skip_connect~2|"),
    ],
)
def test_known_numbers(number: int, text: str) -> None:
    assert SPACE.number(SPACE.parse(text)) == number
    assert SPACE.format(SPACE.from_number(number)) == text


@pytest.mark.invariant("nb201", 1)
def test_the_benchmark_names_and_numbers_architectures_the_same_way(shared_data: Path) -> None:
    with (shared_data / "nb201_truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["arch"]: int(row["base5"]) for row in rows} == {SPACE.format(a): i for i, a in enumerate(ARCHS)}


@given(archs, st.integers(0, 200), st.sampled_from("|~+01234abnone_x "), st.booleans())
def test_a_damaged_string_is_refused(arch: Arch, place: int, sign: str, insert: bool) -> None:
    text = SPACE.format(arch)
    place %= len(text)
    damaged = text[:place] + sign + text[place + (not insert) :]
    if damaged != text:
        with pytest.raises(BadInput):
            SPACE.parse(damaged)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a number below 15625"),
        ("15625", "expected a number below 15625"),
        ("-1", "expected a number below 15625"),
        ("9" * 6000, "expected a number below 15625"),  # longer than int() reads
        ("²", "expected a number below 15625"),
        (SPACE.format((1,) * 6) + "\n", "Cannot read the nb201 architecture"),
        (SPACE.format((1,) * 6).replace("~2", "~1"), "Cannot read the nb201 architecture"),
        (SPACE.format((1,) * 6).replace("skip_connect~2", "sep_conv_3x3~2"), "Unknown operation 'sep_conv_3x3'"),
    ],
)
def test_text_that_is_no_architecture_is_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SPACE.parse(text)


# ---------------------------------------------------------------------- costs


def kind(arch: Arch) -> tuple[int, int]:
    return arch.count(CONV1), arch.count(CONV3)


def count(net: nn.Module) -> dict[str, int]:
    """Costs of a network by its parameters."""
    weights = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    return {"params": sum(p.numel() for p in net.parameters()), "conv_weights": weights}


def count_madds(net: nn.Module, image: tuple[int, int, int]) -> int:
    """Multiply-adds of one image, counted where they happen."""
    total = 0

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    for module in net.modules():
        module.register_forward_hook(hook)
    net.eval()(torch.zeros(1, *image, device="meta"))
    return total


def shape_only(space: NB201, arch: Arch) -> nn.Module:
    """A stand-alone network without numbers, which counts like any other."""
    with torch.device("meta"):
        return space.build(arch)


@pytest.mark.invariant("nb201", 2)
def test_complexity_has_28_values_and_each_is_that_of_the_network() -> None:
    classes = {kind(arch): arch for arch in ARCHS}
    values = {SPACE.cost(arch)["conv_weights"] for arch in ARCHS}
    assert len(classes) == len(values) == 28
    assert (min(values), max(values)) == SPACE.cost_range("conv_weights") == (72_752, 1_524_272)
    for (ones, threes), arch in classes.items():
        cost, counted = SPACE.cost(arch), count(shape_only(SPACE, arch))
        assert cost["conv_weights"] == 432 + 71_680 + 640 + 26_880 * (ones + 9 * threes) == counted["conv_weights"]
        assert cost["params"] == counted["params"]


@pytest.mark.invariant("nb201", 3)
def test_full_parameter_counts() -> None:
    assert SPACE.cost((CONV3,) * 6)["params"] == 1_531_546
    assert SPACE.cost((NONE,) * 6)["params"] == SPACE.cost((SKIP,) * 6)["params"] == 73_306
    assert SPACE.cost_range("params") == (73_306, 1_531_546)
    assert SPACE.cost_range("madds") == tuple(f(SPACE.cost(a)["madds"] for a in ARCHS) for f in (min, max))


@pytest.mark.invariant("nb201", 4)
@settings(max_examples=25)
@given(
    archs,
    st.sampled_from([(3, 32, 32), (1, 8, 8)]),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(2, 20),
)
def test_costs_are_those_counted_on_the_network_of_any_size(
    arch: Arch, image: tuple[int, int, int], channels: int, cells: int, classes: int
) -> None:
    space = NB201(channels=channels, cells=cells, classes=classes, image=image)
    net = shape_only(space, arch)
    assert space.cost(arch) == {**count(net), "madds": count_madds(net, image)}


@pytest.mark.invariant("nb201", 4)
@pytest.mark.parametrize("arch", [(CONV3,) * 6, (NONE,) * 6, (POOL, CONV1, SKIP, CONV3, CONV1, NONE)])
def test_costs_at_the_benchmarks_own_size(arch: Arch) -> None:
    net = shape_only(SPACE, arch)
    assert SPACE.cost(arch) == {**count(net), "madds": count_madds(net, (3, 32, 32))}


# ---------------------------------------------------------------------- equal cells


@pytest.mark.invariant("nb201", 6)
def test_the_benchmarks_rule_finds_6466_forms_and_the_reduced_one_4930() -> None:
    benchmark = {arch: SPACE.canonical(arch, "benchmark") for arch in ARCHS}
    reduced = {arch: SPACE.canonical(arch, "reduced") for arch in ARCHS}
    assert len(set(benchmark.values())) == 6466
    assert len(set(reduced.values())) == 4930
    # The reduced rule only merges further: no form of the benchmark's is split.
    assert len(set(zip(benchmark.values(), reduced.values(), strict=True))) == 6466


def outputs(pool: Callable[[Tensor], Tensor]) -> Tensor:
    """The output of every architecture's cell, [15625, values], weights tied between edges, in float64.

    Computed node by node and never by canonical form, so that it can prove the forms right or wrong.
    """
    rng = torch.Generator().manual_seed(0)
    shape = (4, 3, 4, 4)  # images, channels, height, width
    x, one, three = (torch.randn(s, generator=rng, dtype=torch.float64) for s in (shape, (3, 3, 1, 1), (3, 3, 3, 3)))

    def results(nodes: Tensor) -> Tensor:
        """All five operations on values of a node, [..., values] -> [..., 5, values]."""
        images = nodes.reshape(-1, *shape[1:])
        convs = [
            F.conv2d(F.relu(images), weight, padding=weight.shape[-1] // 2).view(-1, *shape) for weight in (one, three)
        ]
        normed = []
        for y in convs:  # batch norm by the batch of each value
            centred = y - y.mean((1, 3, 4), keepdim=True)
            normed.append(centred / (centred.square().mean((1, 3, 4), keepdim=True) + 1e-5).sqrt())
        every = [torch.zeros_like(images), images, *normed, pool(images)]
        return torch.stack([y.reshape(nodes.shape) for y in every], -2)

    a = results(x.flatten())  # of node 0: [5, values]
    b = results(a)  # of node 1, by edge 1<-0: [5, 5, values]
    sums = a[None, :, None] + b[:, None]  # of node 2, by edges 1<-0, 2<-0, 2<-1; or into node 3 but for its last edge
    c = results(sums)  # [5, 5, 5, 5, values]
    return (sums[:, None, None, :, :, None] + c[:, :, :, None, None]).flatten(0, 5)


def distinct(values: Tensor) -> int:
    """Rows that differ by more than rounding, told apart on a random line."""
    line = values @ torch.randn(values.shape[1], generator=torch.Generator().manual_seed(1), dtype=values.dtype)
    return 1 + int((line.sort().values.diff() > 1e-9).sum())


def average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


@pytest.mark.invariant("nb201", 7)
def test_equal_forms_compute_equal_outputs_and_different_forms_different_ones() -> None:
    linear = outputs(average)
    # A form knows nothing of what an operation does, so pooling must not be linear for the converse to hold.
    opaque = outputs(lambda x: average(x) + 0.1 * average(x) ** 3)
    forms = {SPACE.canonical(arch): number for number, arch in enumerate(ARCHS)}
    same = [forms[SPACE.canonical(arch)] for arch in ARCHS]
    for values in (linear, opaque):
        assert (values - values[same]).abs().max() < 1e-9
    assert distinct(opaque) == len(forms) == 4930
    assert distinct(linear) == 4660  # pool(a + b) = pool(a) + pool(b)


@pytest.mark.invariant("nb201", 7)
def test_equal_forms_are_equal_networks_when_the_weights_are_shared_by_what_they_compute() -> None:
    """What the forms see through, one by one."""
    equal = [
        # a skip at either end of an operation
        ((CONV3, NONE, SKIP, NONE, NONE, SKIP), (SKIP, NONE, CONV3, NONE, NONE, SKIP)),
        # which intermediate node is used
        ((CONV3, NONE, NONE, NONE, POOL, NONE), (NONE, CONV3, NONE, NONE, NONE, POOL)),
        # an operation that is fed by zeros, and one that leads nowhere
        ((NONE, NONE, CONV1, CONV3, CONV1, NONE), (CONV1, CONV1, NONE, CONV3, NONE, NONE)),
    ]
    for a, b in equal:
        assert SPACE.canonical(a) == SPACE.canonical(b)
    # A sum in a node and the same sum after a skip: only the reduced rule sees it.
    inner, flat = (CONV1, CONV3, SKIP, NONE, NONE, SKIP), (CONV1, CONV3, NONE, NONE, SKIP, SKIP)
    assert SPACE.canonical(inner) == SPACE.canonical(flat)
    assert SPACE.canonical(inner, "benchmark") != SPACE.canonical(flat, "benchmark")


def test_edges_stand_in_the_order_of_the_benchmark() -> None:
    assert EDGES == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert SPACE.decisions == ("1<-0", "2<-0", "2<-1", "3<-0", "3<-1", "3<-2")
