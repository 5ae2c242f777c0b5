"""The MobileNet space: counts, exact costs, and a supernet whose subnets are the plain networks."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nasbench_mobile.mobilenet import SKIP, MobileNet
from nasbench_mobile.mobilenet_networks import Block, Network, Supernet
from torch import Tensor, nn

from nasbench import Arch
from nasbench.harness import execute
from nasbench.recipe import resolve
from nasbench.testing.spaces import count_costs

SPACE = MobileNet()
SMALL = MobileNet(width=0.2, image=(2, 9, 12), classes=5, strides=(1, 2, 1, 2, 1, 1, 1))
SIZE = 221_502_229_807_900_608
#: Layers that have a shortcut: all but the first of a stage.
SKIPPABLE = [i for i in range(21) if i % 4]


def some(count: int, seed: int = 0) -> list[Arch]:
    rng = random.Random(seed)
    return [SPACE.sample(rng) for _ in range(count)]


@pytest.fixture
def net() -> Supernet:
    torch.manual_seed(0)
    return Supernet(SMALL).double()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 2, 9, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# ---------------------------------------------------------------------- counts and costs


@pytest.mark.invariant("mobilenet", 1)
def test_21_layers_of_six_blocks_or_seven_options() -> None:
    assert list(map(len, SPACE.options)) == [7 if i in SKIPPABLE else 6 for i in range(21)]
    assert SPACE.size == (6 * 7**3) ** 5 * 6 == SIZE
    assert SPACE.choices["layer1"] == ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6")
    assert SPACE.choices["layer2"] == (*SPACE.choices["layer1"], "skip")
    assert [name for name, names in SPACE.choices.items() if "skip" not in names] == [
        f"layer{i}" for i in (1, 5, 9, 13, 17, 21)
    ]
    assert MobileNet(width=0.1).size == SIZE  # also where rounding makes the channels of two stages equal


@pytest.mark.invariant("mobilenet", 2)
def test_the_cheapest_and_the_dearest_cost_what_the_paper_space_does() -> None:
    """At 224 pixels and 1000 classes; with the classifier's 1,000 biases 2,145,384 and 5,054,664 weights."""
    assert SPACE.cost_range("conv_weights") == (2_144_384, 5_053_664)
    assert SPACE.cost_range("madds") == (102_528_896, 606_590_720)
    cheapest = tuple(SKIP if i in SKIPPABLE else 0 for i in range(21))
    for name in ("params", "conv_weights", "madds"):
        assert SPACE.cost_range(name) == (SPACE.cost(cheapest)[name], SPACE.cost((5,) * 21)[name])


@pytest.mark.invariant("mobilenet", 3)
@pytest.mark.parametrize(
    "space",
    [
        MobileNet(image=(3, 64, 64), classes=10),
        MobileNet(image=(3, 32, 32), classes=100, strides=(1, 1, 2, 2, 1, 2, 1)),
        MobileNet(image=(1, 9, 13), classes=4, width=0.35, strides=(1, 2, 2, 1, 1, 2, 1)),
    ],
    ids=["224's strides", "32x32", "odd"],
)
def test_costs_are_those_counted_on_the_network(space: MobileNet) -> None:
    for arch in [(0,) * 21, (5,) * 21, *some(2)]:
        assert space.cost(arch) == count_costs(space, arch)


@pytest.mark.invariant("mobilenet", 4)
@given(st.integers(0, SIZE - 1))
def test_number_text_and_architecture_go_there_and_back(number: int) -> None:
    arch = SPACE.from_number(number)
    assert arch in SPACE
    assert SPACE.number(arch) == number
    assert SPACE.parse(SPACE.format(arch)) == SPACE.parse(str(number)) == arch


@pytest.mark.invariant("mobilenet", 5)
def test_clusters_of_the_first_layer_are_a_sixth_each() -> None:
    """So MS with edge=first has six; FSNAS cuts the second layer, which has seven options."""
    sizes = [SPACE.restrict({"layer1": [option]}).size for option in range(6)]
    assert sizes == [SIZE // 6] * 6 == [36_917_038_301_316_768] * 6
    assert sum(sizes) == SIZE
    assert [SPACE.restrict({"layer2": [option]}).size for option in range(7)] == [SIZE // 7] * 7
    assert 7 * (SIZE // 7) == SIZE


@pytest.mark.invariant("mobilenet", 6)
@pytest.mark.parametrize(("method", "epochs"), [("spos+calr+ms", 150), ("fairnas+calr+ms", 75), ("fsnas+calr+ms", 100)])
def test_the_papers_setting(method: str, epochs: int) -> None:
    recipe = resolve(method, "mobilenet", preset="paper", dataset="digits")
    train = recipe.train.model_dump()
    assert (
        train
        | {
            "epochs": epochs,
            "batch_size": 512,
            "lr": 0.045,
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 4e-5,
            "clip": None,
        }
        == train
    )
    assert recipe.options["calr"]["gamma_prime"] == 3
    assert recipe.options["ms"]["edge"] == "first"
    assert recipe.options.get("fsnas", {"edge": "layer2"})["edge"] == "layer2"


# ---------------------------------------------------------------------- networks


def copied(net: Supernet, arch: Arch) -> Network:
    """The plain network of an architecture with a copy of the supernet's weights; its batch norms are fresh."""
    network = Network(SMALL, arch).double().train()
    blocks = [layer[o] for layer, o in zip(net.layers, arch, strict=True) if o != SKIP]  # type: ignore[index]
    pairs: list[tuple[Any, Any]] = [(network.opening, net.opening), (network.closing, net.closing)]
    pairs += [(network.classifier, net.classifier), *zip(network.layers, blocks, strict=True)]
    for mine, theirs in pairs:
        missing, unexpected = mine.load_state_dict(theirs.state_dict(), strict=False)
        assert not unexpected
        norms = [name for name, module in mine.named_modules() if isinstance(module, nn.BatchNorm2d)]
        assert {name.rpartition(".")[0] for name in missing} == set(norms)
    return network


@pytest.mark.invariant("mobilenet", 7)
def test_a_subnet_is_the_plain_network_with_its_weights(net: Supernet, images: Tensor) -> None:
    archs = [(0,) * 21, (5,) * 21, tuple(SKIP if i in SKIPPABLE else 3 for i in range(21)), *some(4)]
    together = net(images, archs)
    for arch, logits in zip(archs, together, strict=True):
        alone = copied(net, arch)(images)
        assert torch.allclose(logits, alone, rtol=0, atol=1e-10)
        assert torch.allclose(logits, net(images, [arch])[0], rtol=0, atol=1e-12)


@pytest.mark.invariant("mobilenet", 7)
def test_a_plain_network_is_built_as_described() -> None:
    """The reference is torch's own layers, in a row: kernels, strides, groups, activations, shortcuts."""
    arch = tuple(SKIP if i in (1, 6) else i % 6 for i in range(21))
    network = Network(SMALL, arch)
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    depthwise = [m for m in convs if m.groups > 1]
    assert [m.kernel_size[0] for m in depthwise] == [3, *((3, 3, 5, 5, 7, 7)[o] for o in arch if o != SKIP)]
    assert [m.stride[0] for m in convs if m.stride[0] > 1] == [s for s in SMALL.strides if s > 1]
    assert not any(m.bias is not None for m in convs)
    assert sum(isinstance(m, nn.ReLU6) for m in network.modules()) == 2 + 2 * 19 + 1
    blocks = [m for m in network.layers if isinstance(m, Block)]
    layers = [i for i in range(21) if arch[i] != SKIP]
    assert [layer for layer, block in zip(layers, blocks, strict=True) if block.shortcut] == [
        i for i in SKIPPABLE if arch[i] != SKIP
    ]
    x = torch.randn(3, blocks[1][0].in_channels, 5, 5)  # type: ignore[union-attr]
    assert torch.allclose(blocks[1](x), x + nn.Sequential(*blocks[1])(x))


@pytest.mark.invariant("mobilenet", 8)
def test_a_mixture_is_the_weighted_sum_and_a_one_hot_one_the_subnet(net: Supernet, images: Tensor) -> None:
    arch = some(1)[0]
    mixture = [
        F.one_hot(torch.tensor(o), len(options)).double() for o, options in zip(arch, SPACE.options, strict=True)
    ]
    assert torch.allclose(net(images, [mixture])[0], net(images, [arch])[0], rtol=0, atol=1e-12)
    mixture[1] = torch.tensor([0, 0.5, 0, 0, 0.2, 0, 0.3], dtype=torch.float64)
    x = net.opening(images)
    for i, layer in enumerate(net.layers):
        if i == 1:
            x = 0.5 * layer[1](x) + 0.2 * layer[4](x) + 0.3 * x  # type: ignore[index]
        elif arch[i] != SKIP:
            x = layer[arch[i]](x)  # type: ignore[index]
    assert torch.allclose(net(images, [mixture])[0], net.close(x), rtol=0, atol=1e-12)


@pytest.mark.invariant("mobilenet", 9)
def test_gradient_reaches_the_sampled_blocks_alone(net: Supernet, images: Tensor) -> None:
    archs = some(2, seed=3)
    net(images, archs).square().sum().backward()
    for i, layer in enumerate(net.layers):
        for option, block in enumerate(layer):  # type: ignore[arg-type]
            reached = {p.grad is not None for p in block.parameters()}
            assert reached == {option in {arch[i] for arch in archs}}


@pytest.mark.invariant("mobilenet", 10)
def test_the_supernet_has_every_block_and_remembers_no_statistics() -> None:
    with torch.device("meta"):
        net = Supernet(SPACE)
    blocks = sum(place.cost(k, e)["conv_weights"] for place, _ in SPACE.layers for k in (3, 5, 7) for e in (3, 6))
    fixed = SPACE.cost((0,) * 21)["conv_weights"] - sum(place.cost(3, 3)["conv_weights"] for place, _ in SPACE.layers)
    assert sum(p.numel() for p in net.parameters()) == fixed + blocks + 1000 == 15_818_520
    assert not list(net.buffers())
    assert math.prod(map(len, SPACE.choices.values())) == SIZE


# ---------------------------------------------------------------------- runs


@pytest.mark.parametrize(("space", "window"), [("mobilenet", "madds=250K..330K"), ("mobilenetv3", "params=70K..90K")])
@pytest.mark.parametrize("method", ["spos+evolution+retrain", "fairnas+calr+ms", "fsnas+calr+ms"])
def test_supernet_methods_run_here(space: str, window: str, method: str, tmp_path: Path) -> None:
    """The evolution in a window, of which the choice is trained alone."""
    evolves = "evolution" in method
    sets: dict[str, Any] = {"train": {"epochs": 1}, "score": {"subset": "random:3"}}
    if evolves:
        sets |= {
            "select": {"within": window},
            "evolution": {"generations": 2, "population": 3},
            "retrain": {"epochs": 1},
        }
    record, _ = execute(resolve(method, space, preset="test", sets=sets), tmp_path)
    result = record["results"][-1]
    values = {m["name"]: m["value"] for m in result["metrics"]}
    assert result["arch"]
    if evolves:
        name, _, ends = window.partition("=")
        low, high = (1000 * float(end.removesuffix("K")) for end in ends.split(".."))
        assert low <= values[name] <= high
        assert [r["phase"] for r in record["results"]] == ["search", "retrain"]
        assert 0 <= values["top1"] <= 100
