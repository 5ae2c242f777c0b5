"""The DARTS space without training: published counts, genotypes as they are printed, exact costs, encodings."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_cells.darts import DARTS, EDGES, NODES, OPERATIONS, incoming, pairs

from nasbench import Arch, BadInput
from nasbench.testing.spaces import count_costs
from tests.command import nasbench

SPACE = DARTS()
IMAGENET = SPACE.with_(stem="imagenet", final_channels=48, final_cells=14, classes=1000, image=(3, 224, 224))
#: As their papers' codes print them.
PUBLISHED = {
    "DARTS_V1": "DARTS_V1 = Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 0), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], "
    "reduce_concat=[2, 3, 4, 5])",
    "DARTS_V2": "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
    "reduce_concat=[2, 3, 4, 5])",
    "PC_DARTS_cifar": "genotypes.Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), "
    "('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)], "
    "normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), "
    "('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], "
    "reduce_concat=range(2, 6))",
    "PDARTS": "Genotype(normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 0), ('dil_conv_5x5', 4)], "
    "normal_concat=range(2, 6), reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), "
    "('dil_conv_5x5', 2), ('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)], "
    "reduce_concat=range(2, 6))",
    "PC_DARTS_image": "Genotype(normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), "
    "('skip_connect', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)], "
    "normal_concat=range(2, 6), reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), "
    "('max_pool_3x3', 1), ('sep_conv_3x3', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 3)], "
    "reduce_concat=range(2, 6))",
    "SNAS": "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('dil_conv_3x3', 1), "
    "('skip_connect', 1), ('skip_connect', 0), ('skip_connect', 0), ('sep_conv_3x3', 1)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('dil_conv_5x5', 2)], "
    "reduce_concat=range(2, 6))",
    "GDAS_V1": """GDAS_V1 = Genotype(
  normal=[
    (('skip_connect', 0), ('skip_connect', 1)),  # a node a line
    (('skip_connect', 0), ('sep_conv_5x5', 2)),
    (('sep_conv_3x3', 3), ('skip_connect', 0)),
    (('sep_conv_5x5', 4), ('sep_conv_3x3', 3))],
  normal_concat=[2, 3, 4, 5],
  reduce=[
    (('sep_conv_5x5', 0), ('sep_conv_3x3', 1)),
    (('sep_conv_5x5', 2), ('sep_conv_5x5', 1)),
    (('dil_conv_5x5', 2), ('sep_conv_3x3', 1)),
    (('sep_conv_5x5', 0), ('sep_conv_5x5', 1))],
  reduce_concat=[2, 3, 4, 5],
  connectN=None, connects=None
)""",
    "GDAS_V1 with weights": "Genotype(normal=[('skip_connect', 0, 0.1302), ('skip_connect', 1, 0.1295), "
    "('skip_connect', 0, 0.1306), ('sep_conv_5x5', 2, 0.1298), ('sep_conv_3x3', 3, 0.1292), "
    "('skip_connect', 0, 0.1290), ('sep_conv_5x5', 4, 0.1294), ('sep_conv_3x3', 3, 0.1289)], "
    "normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 0, 0.1286), ('sep_conv_3x3', 1, 0.1278), "
    "('sep_conv_5x5', 2, 0.1273), ('sep_conv_5x5', 1, 0.1271), ('dil_conv_5x5', 2, 0.1280), "
    "('sep_conv_3x3', 1, 0.1274), ('sep_conv_5x5', 0, 0.1283), ('sep_conv_5x5', 1, 0.1276)], "
    "reduce_concat=range(2, 6))",
}


def drawn(space: DARTS, seed: int) -> Arch:
    return space.sample(random.Random(seed))


def fields(normal: str = "[('skip_connect', 0), ('skip_connect', 1)] * 4", concat: str = "[2, 3, 4, 5]") -> str:
    flat = str([("skip_connect", 0), ("skip_connect", 1)] * 4)
    normal = normal.replace("[('skip_connect', 0), ('skip_connect', 1)] * 4", flat)
    return f"Genotype(normal={normal}, normal_concat={concat}, reduce={flat}, reduce_concat=[2, 3, 4, 5])"


# ---------------------------------------------------------------------- counts


@pytest.mark.invariant("darts", 1)
def test_there_are_1e18_architectures() -> None:
    assert SPACE.size == (1 * 3 * 6 * 10 * 7**8) ** 2 == 1_076_746_950_455_072_400
    assert SPACE.with_(variant="SS2").size == 8**28
    assert SPACE.with_(variant="SS3", cells=14).size == 8 ** (14 * 14)
    assert SPACE.with_(variant="free", cells=14).size == 2 ** (7 * 14 * 14)
    assert SPACE.from_number(SPACE.size - 1) == tuple(len(o) - 1 for o in SPACE.choices.values())


@pytest.mark.invariant("darts", 2)
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("DARTS_V1", 3_169_414),
        ("DARTS_V2", 3_349_342),
        ("PC_DARTS_cifar", 3_634_678),
        ("PDARTS", 3_433_798),
        ("SNAS", 2_661_382),
        ("GDAS_V1", 3_368_782),
        ("GDAS_V1 with weights", 3_368_782),
    ],
)
def test_parameters_of_published_genotypes_on_cifar(name: str, params: int) -> None:
    arch = SPACE.parse(PUBLISHED[name])
    assert SPACE.cost(arch)["params"] == params
    with torch.device("meta"):
        assert sum(p.numel() for p in SPACE.build(arch).parameters()) == params


@pytest.mark.invariant("darts", 2)
@pytest.mark.parametrize(
    ("name", "params"), [("DARTS_V2", 4_718_752), ("PDARTS", 4_944_352), ("PC_DARTS_image", 5_342_464)]
)
def test_parameters_of_published_genotypes_on_imagenet(name: str, params: int) -> None:
    arch = IMAGENET.parse(PUBLISHED[name])
    assert IMAGENET.cost(arch)["params"] == params
    with torch.device("meta"):
        assert sum(p.numel() for p in IMAGENET.build(arch).parameters()) == params


@pytest.mark.invariant("darts", 3)
def test_parameters_of_the_search_network_and_the_auxiliary_heads() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in SPACE.supernet().parameters()) == 1_930_618 - 2 * 48
        arch = SPACE.parse(PUBLISHED["DARTS_V2"])
        for space, params in ((SPACE, 476_426), (IMAGENET, 1_260_776)):
            network = space.with_(auxiliary=True).build(arch)
            assert sum(p.numel() for p in network.auxiliary.parameters()) == params


def test_query_answers_with_the_published_count(tmp_path: Path) -> None:
    result = nasbench("query", "--space", "darts", PUBLISHED["DARTS_V2"], "--json", cwd=tmp_path)
    assert result.code == 0
    assert json.loads(result.out)["params"] == 3_349_342


# ---------------------------------------------------------------------- costs


@pytest.mark.invariant("darts", 4)
@settings(max_examples=15)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["SS1", "SS2", "SS3", "free"]),
    st.sampled_from([("cifar", (3, 32, 32)), ("cifar", (1, 8, 12)), ("imagenet", (3, 64, 32))]),
    st.integers(2, 5),
    st.integers(3, 7),
)
def test_costs_are_those_counted_on_the_network(seed: int, variant: str, at: Any, c: int, cells: int) -> None:
    stem, image = at
    space = DARTS(variant=variant, stem=stem, image=image, final_channels=c, final_cells=cells, cells=cells, classes=7)
    arch = drawn(space, seed)
    assert space.cost(arch) == count_costs(space, arch)


@pytest.mark.invariant("darts", 5)
@pytest.mark.parametrize("variant", ["SS1", "SS2", "SS3", "free"])
@pytest.mark.parametrize("name", ["params", "conv_weights", "madds"])
def test_the_extremes_are_reached_and_never_passed(variant: str, name: str) -> None:
    """One decision at a time takes its best option, from a random architecture on, until nothing changes."""
    space = DARTS(variant=variant, cells=3, final_cells=3)
    low, high = space.cost_range(name)
    for sign, extreme in ((1, low), (-1, high)):
        arch, before = drawn(space, 3), None
        while arch != before:
            before = arch
            for i, options in enumerate(space.options):
                arch = min((space.replace(arch, i, o) for o in options), key=lambda a: sign * space.cost(a)[name])
        assert space.cost(arch)[name] == extreme
    assert all(low <= space.cost(drawn(space, seed))[name] <= high for seed in range(50))


# ---------------------------------------------------------------------- text


@pytest.mark.invariant("darts", 6)
@given(st.integers(0, 10**6), st.sampled_from(["SS1", "SS2", "SS3", "free"]))
def test_genotypes_go_there_and_back_and_say_what_the_network_has(seed: int, variant: str) -> None:
    space = DARTS(variant=variant, cells=3, final_cells=3)
    arch = drawn(space, seed)
    text = space.format(arch)
    assert space.parse(text) == arch
    assert space.parse(str(space.number(arch))) == arch
    assert space.architecture(space.structures(arch)) == arch


@pytest.mark.invariant("darts", 6)
def test_the_order_of_a_node_s_inputs_does_not_matter() -> None:
    a, b = "('sep_conv_3x3', 1), ('skip_connect', 0)", "('skip_connect', 0), ('sep_conv_3x3', 1)"
    text = PUBLISHED["PC_DARTS_cifar"]
    assert a in text
    assert SPACE.parse(text) == SPACE.parse(text.replace(a, b))
    normal, reduce = SPACE.structures(SPACE.parse(text))
    assert [(EDGES[e][0], OPERATIONS[op]) for e, op in enumerate(normal) if EDGES[e][1] == 2] == [
        (0, "skip_connect"),
        (1, "sep_conv_3x3"),
    ]
    assert sum(op != 0 for op in normal) == sum(op != 0 for op in reduce) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Genotyp(normal=[])", "Cannot read the darts architecture"),
        ("__import__('os').getcwd()", "Cannot read the darts architecture"),
        ("Genotype(normal=f(2))", "Cannot read the darts architecture"),
        ("Genotype(", "Cannot read the darts architecture"),
        ("(" * 5000, "Cannot read the darts architecture"),
        (str(SPACE.size), "Cannot read the darts architecture"),
        ("Genotype(normal=[])", "has normal, normal_concat, reduce, reduce_concat, not normal"),
        (fields(concat="[2, 3, 4]"), r"concatenate all nodes, \[2, 3, 4, 5\]"),
        (fields(concat="7"), r"concatenate all nodes, \[2, 3, 4, 5\]"),
        (fields(normal="[('sep_conv_3x3', 0)]"), "has 1 entries; expected 8 pairs"),
        (fields(normal="5"), "must be a list"),
        (fields(normal=str([("skip_connect", 2, 0)] * 4)), "Node 2 of the normal cell needs a list"),
        (fields(concat="None"), "has normal, normal_concat, reduce, reduce_concat, not normal, reduce, reduce_concat"),
        (fields(normal="[[('skip_connect', 0)], 3, [], []]"), "Node 3 of the normal cell needs a list"),
        (fields().replace("skip_connect", "skip_conect", 1), "did you mean 'skip_connect'"),
        (fields().replace("('skip_connect', 1)", "('skip_connect', 2)", 1), "Node 2 of the normal cell reads 2;"),
        (fields().replace("('skip_connect', 1)", "('skip_connect', 0)", 1), "reads 0 twice"),
        (fields().replace("('skip_connect', 1)", "('none', 1)", 1), "reads 1 others; in SS1 it is two"),
    ],
)
def test_what_is_no_genotype_of_the_space_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SPACE.parse(text)


@pytest.mark.invariant("darts", 6)
def test_in_the_variant_free_an_edge_has_any_number_of_operations() -> None:
    space = DARTS(variant="free", cells=3)
    both = "[[('max_pool_3x3', 1), ('sep_conv_3x3', 1)], [], [('skip_connect', 3)], []]"
    arch = space.parse(f"Genotype(cells=[{both}, [[], [], [], []], {both}])")
    names = [name for name, there in zip(space.choices, arch, strict=True) if there]
    assert names[:3] == ["cell0:2<-1:max_pool_3x3", "cell0:2<-1:sep_conv_3x3", "cell0:4<-3:skip_connect"]
    assert len(names) == 6
    with pytest.raises(BadInput, match="reads 1 twice; an edge has each operation once"):
        space.parse(f"Genotype(cells=[{both.replace('max_pool', 'sep_conv')}, {both}, {both}])")


@pytest.mark.invariant("darts", 7)
@pytest.mark.parametrize("with_none", [True, False])
def test_in_the_variant_free_whatever_weighs_anything_is_kept(with_none: bool) -> None:
    space = DARTS(variant="free", cells=3, with_none=with_none)
    weights = [torch.zeros(7 + with_none) for _ in space.relaxed]
    weights[1][-4], weights[1][-7], weights[0][0] = 0.3, 1e-9, float(with_none)
    arch = space.discretize(weights)
    assert [name for name, there in zip(space.choices, arch, strict=True) if there] == [
        "cell0:2<-1:max_pool_3x3",
        "cell0:2<-1:sep_conv_3x3",
    ]


def test_cells_of_their_own_need_a_structure_for_each() -> None:
    with pytest.raises(BadInput, match="cells must be a list of 8"):
        SPACE.with_(variant="SS3").parse("Genotype(cells=[])")


# ---------------------------------------------------------------------- mixtures


@pytest.mark.invariant("darts", 7)
@given(st.integers(0, 10**6), st.booleans())
def test_the_two_strongest_edges_of_a_node_are_kept_each_with_its_best_operation(seed: int, with_none: bool) -> None:
    space = SPACE.with_(with_none=with_none)
    rng = torch.Generator().manual_seed(seed)
    weights = [torch.rand(len(options), generator=rng) for options in space.relaxed.values()]
    assert len(weights) == 28
    for at, structure in zip((0, 14), space.structures(space.discretize(weights)), strict=True):
        for node in NODES:
            strength = {e: float(weights[at + e][int(with_none) :].max()) for e in incoming(node)}
            kept = {e for e in incoming(node) if structure[e] != 0}
            assert kept == set(sorted(strength, key=lambda e: strength[e])[-2:])
            assert all(structure[e] - 1 == int(weights[at + e][int(with_none) :].argmax()) for e in kept)


@pytest.mark.invariant("darts", 7)
@pytest.mark.parametrize("with_none", [True, False])
def test_without_the_limit_every_edge_takes_its_heaviest_operation(with_none: bool) -> None:
    space = SPACE.with_(variant="SS2", with_none=with_none)
    rng = torch.Generator().manual_seed(0)
    weights = [torch.rand(len(options), generator=rng) for options in space.relaxed.values()]
    expected = tuple(int(w.argmax()) + (not with_none) for w in weights)
    assert space.discretize(weights) == expected


def test_a_node_reads_each_pair_of_those_before_it() -> None:
    assert [len(pairs(node)) for node in NODES] == [1, 3, 6, 10]
    assert [list(incoming(node)) for node in NODES] == [[0, 1], [2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12, 13]]


@pytest.mark.parametrize(
    ("stem", "image", "fits"),
    [
        ("cifar", (3, 32, 32), True),
        ("cifar", (1, 30, 32), False),
        ("imagenet", (3, 224, 224), True),
        ("imagenet", (3, 48, 64), False),
    ],
)
def test_images_that_cannot_be_halved_are_refused(stem: str, image: tuple[int, int, int], fits: bool) -> None:
    reason = DARTS(stem=stem, image=image).refuse(None)  # type: ignore[arg-type]
    assert (reason is None) == fits
